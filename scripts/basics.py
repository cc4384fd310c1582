"""Bilingual drills written for this project: short questions whose answers are certain, in English and French.

They teach the form of an answer (say it, then stop), a handful of everyday facts, and how to follow a format
that was asked for. Own work, Apache-2.0. `rows(seed)` yields chat rows; the same seed yields the same rows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

CAPITALS = [
    # country (en), country (fr with article), capital (en), capital (fr)
    ("France", "la France", "Paris", "Paris"), ("Italy", "l'Italie", "Rome", "Rome"),
    ("Spain", "l'Espagne", "Madrid", "Madrid"), ("Germany", "l'Allemagne", "Berlin", "Berlin"),
    ("Portugal", "le Portugal", "Lisbon", "Lisbonne"), ("Belgium", "la Belgique", "Brussels", "Bruxelles"),
    ("the Netherlands", "les Pays-Bas", "Amsterdam", "Amsterdam"), ("Switzerland", "la Suisse", "Bern", "Berne"),
    ("Austria", "l'Autriche", "Vienna", "Vienne"), ("Poland", "la Pologne", "Warsaw", "Varsovie"),
    ("Greece", "la Grèce", "Athens", "Athènes"), ("Sweden", "la Suède", "Stockholm", "Stockholm"),
    ("Norway", "la Norvège", "Oslo", "Oslo"), ("Denmark", "le Danemark", "Copenhagen", "Copenhague"),
    ("Finland", "la Finlande", "Helsinki", "Helsinki"), ("Ireland", "l'Irlande", "Dublin", "Dublin"),
    ("the United Kingdom", "le Royaume-Uni", "London", "Londres"), ("Hungary", "la Hongrie", "Budapest", "Budapest"),
    ("Romania", "la Roumanie", "Bucharest", "Bucarest"), ("Ukraine", "l'Ukraine", "Kyiv", "Kyiv"),
    ("Turkey", "la Turquie", "Ankara", "Ankara"), ("Egypt", "l'Égypte", "Cairo", "Le Caire"),
    ("Morocco", "le Maroc", "Rabat", "Rabat"), ("Algeria", "l'Algérie", "Algiers", "Alger"),
    ("Tunisia", "la Tunisie", "Tunis", "Tunis"), ("Senegal", "le Sénégal", "Dakar", "Dakar"),
    ("Kenya", "le Kenya", "Nairobi", "Nairobi"), ("Mali", "le Mali", "Bamako", "Bamako"),
    ("Japan", "le Japon", "Tokyo", "Tokyo"), ("China", "la Chine", "Beijing", "Pékin"),
    ("South Korea", "la Corée du Sud", "Seoul", "Séoul"), ("India", "l'Inde", "New Delhi", "New Delhi"),
    ("Vietnam", "le Viêt Nam", "Hanoi", "Hanoï"), ("Thailand", "la Thaïlande", "Bangkok", "Bangkok"),
    ("Indonesia", "l'Indonésie", "Jakarta", "Jakarta"), ("Australia", "l'Australie", "Canberra", "Canberra"),
    ("New Zealand", "la Nouvelle-Zélande", "Wellington", "Wellington"), ("Canada", "le Canada", "Ottawa", "Ottawa"),
    ("the United States", "les États-Unis", "Washington, D.C.", "Washington"),
    ("Mexico", "le Mexique", "Mexico City", "Mexico"), ("Cuba", "Cuba", "Havana", "La Havane"),
    ("Brazil", "le Brésil", "Brasília", "Brasília"), ("Argentina", "l'Argentine", "Buenos Aires", "Buenos Aires"),
    ("Chile", "le Chili", "Santiago", "Santiago"), ("Peru", "le Pérou", "Lima", "Lima"),
    ("Colombia", "la Colombie", "Bogotá", "Bogota"), ("Iceland", "l'Islande", "Reykjavík", "Reykjavik"),
    ("Luxembourg", "le Luxembourg", "Luxembourg", "Luxembourg"), ("Iran", "l'Iran", "Tehran", "Téhéran"),
    ("Iraq", "l'Irak", "Baghdad", "Bagdad"),
]  # fmt: skip

WORDS = [
    ("dog", "chien", "le"), ("cat", "chat", "le"), ("house", "maison", "la"), ("tree", "arbre", "l'"),
    ("water", "eau", "l'"), ("bread", "pain", "le"), ("book", "livre", "le"), ("school", "école", "l'"),
    ("friend", "ami", "l'"), ("mother", "mère", "la"), ("father", "père", "le"), ("child", "enfant", "l'"),
    ("sun", "soleil", "le"), ("moon", "lune", "la"), ("star", "étoile", "l'"), ("sea", "mer", "la"),
    ("mountain", "montagne", "la"), ("river", "rivière", "la"), ("flower", "fleur", "la"), ("bird", "oiseau", "l'"),
    ("fish", "poisson", "le"), ("horse", "cheval", "le"), ("apple", "pomme", "la"), ("cheese", "fromage", "le"),
    ("milk", "lait", "le"), ("coffee", "café", "le"), ("tea", "thé", "le"), ("table", "table", "la"),
    ("chair", "chaise", "la"), ("window", "fenêtre", "la"), ("door", "porte", "la"), ("city", "ville", "la"),
    ("train", "train", "le"), ("car", "voiture", "la"), ("day", "jour", "le"), ("night", "nuit", "la"),
    ("winter", "hiver", "l'"), ("summer", "été", "l'"), ("spring", "printemps", "le"), ("autumn", "automne", "l'"),
    ("head", "tête", "la"), ("hand", "main", "la"), ("heart", "cœur", "le"), ("work", "travail", "le"),
    ("music", "musique", "la"), ("time", "temps", "le"), ("money", "argent", "l'"), ("letter", "lettre", "la"),
    ("question", "question", "la"), ("answer", "réponse", "la"), ("red", "rouge", ""), ("blue", "bleu", ""),
    ("green", "vert", ""), ("white", "blanc", ""), ("black", "noir", ""), ("yellow", "jaune", ""),
]  # fmt: skip

OPPOSITES = [
    ("hot", "cold", "chaud", "froid"), ("big", "small", "grand", "petit"), ("fast", "slow", "rapide", "lent"),
    ("happy", "sad", "heureux", "triste"), ("young", "old", "jeune", "vieux"), ("rich", "poor", "riche", "pauvre"),
    ("full", "empty", "plein", "vide"), ("open", "closed", "ouvert", "fermé"), ("light", "dark", "clair", "sombre"),
    ("strong", "weak", "fort", "faible"), ("easy", "difficult", "facile", "difficile"),
    ("early", "late", "tôt", "tard"), ("true", "false", "vrai", "faux"), ("near", "far", "près", "loin"),
    ("high", "low", "haut", "bas"), ("new", "old", "nouveau", "ancien"), ("clean", "dirty", "propre", "sale"),
]  # fmt: skip

GROUPS = [
    ("fruits", ["apple", "banana", "orange", "pear", "cherry", "grape"],
     "fruits", ["pomme", "banane", "orange", "poire", "cerise", "raisin"]),
    ("vegetables", ["carrot", "potato", "tomato", "onion", "spinach", "leek"],
     "légumes", ["carotte", "pomme de terre", "tomate", "oignon", "épinard", "poireau"]),
    ("animals", ["dog", "cat", "horse", "cow", "lion", "elephant"],
     "animaux", ["chien", "chat", "cheval", "vache", "lion", "éléphant"]),
    ("colours", ["red", "blue", "green", "yellow", "white", "black"],
     "couleurs", ["rouge", "bleu", "vert", "jaune", "blanc", "noir"]),
    ("planets", ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn"],
     "planètes", ["Mercure", "Vénus", "la Terre", "Mars", "Jupiter", "Saturne"]),
    ("musical instruments", ["piano", "violin", "guitar", "flute", "drum", "trumpet"],
     "instruments de musique", ["piano", "violon", "guitare", "flûte", "tambour", "trompette"]),
    ("sports", ["football", "tennis", "swimming", "rugby", "judo", "cycling"],
     "sports", ["football", "tennis", "natation", "rugby", "judo", "cyclisme"]),
    ("programming languages", ["Python", "C", "Rust", "Java", "JavaScript", "Go"],
     "langages de programmation", ["Python", "C", "Rust", "Java", "JavaScript", "Go"]),
]  # fmt: skip

DAYS = (
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
)
MONTHS = (
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
     "December"],
    ["janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre",
     "décembre"],
)  # fmt: skip

FIXED = [
    ("en", "How many days are there in a week?", "There are seven days in a week."),
    ("en", "How many months are there in a year?", "There are twelve months in a year."),
    ("en", "How many hours are there in a day?", "There are 24 hours in a day."),
    ("en", "How many minutes are there in an hour?", "There are 60 minutes in an hour."),
    ("en", "Name the days of the week.", "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."),
    ("en", "What are the four seasons?", "The four seasons are spring, summer, autumn and winter."),
    ("en", "Why is the sky blue?", "Air scatters blue light more than red light, so the sky looks blue from every side."),
    ("en", "What is photosynthesis?",
     "Photosynthesis is how plants use sunlight, water and carbon dioxide to make sugar and oxygen."),
    ("en", "At what temperature does water boil?", "At sea level, water boils at 100 degrees Celsius."),
    ("en", "At what temperature does water freeze?", "Water freezes at 0 degrees Celsius."),
    ("en", "How many legs does a spider have?", "A spider has eight legs."),
    ("en", "Which planet do we live on?", "We live on the planet Earth."),
    ("en", "What is the largest ocean?", "The Pacific Ocean is the largest ocean on Earth."),
    ("en", "Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
    ("en", "Who wrote Romeo and Juliet?", "William Shakespeare wrote Romeo and Juliet."),
    ("en", "Who wrote Les Misérables?", "Victor Hugo wrote Les Misérables."),
    ("en", "Hello!", "Hello! How can I help you?"),
    ("en", "Hi, how are you?", "I am ready to help. What would you like to talk about?"),
    ("en", "Thank you.", "You are welcome!"),
    ("en", "Goodbye.", "Goodbye, and have a good day!"),
    ("en", "Who are you?", "I am a small assistant that runs on this machine with Causerie. I can be wrong, so please check what matters."),
    ("en", "Are you ChatGPT?", "No. I am a small assistant that runs on your own machine with Causerie."),
    ("en", "Can you make mistakes?", "Yes, often. I am a small model, so please check what matters."),
    ("en", "What will the weather be tomorrow?", "I cannot know that: I have no access to weather reports."),
    ("en", "Give me three tips for staying healthy.",
     "1. Eat fruit and vegetables every day.\n2. Walk or do some sport for half an hour a day.\n3. Sleep seven to eight hours a night."),
    ("en", "Give me three tips for sleeping better.",
     "1. Go to bed at the same time every night.\n2. Avoid screens and coffee in the evening.\n3. Keep your bedroom dark, quiet and cool."),
    ("en", "Rewrite politely: Send me the report now.", "Could you please send me the report as soon as you can?"),
    ("en", "Rewrite politely: You are late.", "I notice you arrived a little later than planned. Is everything all right?"),
    ("en", "Suggest a name for a bakery.", "The Golden Crust"),
    ("en", "Suggest a name for a bookshop.", "The Turning Page"),
    ("en", "Write a short poem about the sea.",
     "The sea breathes in, the sea breathes out,\nIt hums beneath the sky,\nAnd every wave that leaves the shore\nComes back to say goodbye."),
    ("en", "Write one sentence about spring.", "In spring the days grow longer and the first flowers open."),
    ("fr", "Combien y a-t-il de jours dans une semaine ?", "Il y a sept jours dans une semaine."),
    ("fr", "Combien y a-t-il de mois dans une année ?", "Il y a douze mois dans une année."),
    ("fr", "Combien y a-t-il d'heures dans une journée ?", "Il y a 24 heures dans une journée."),
    ("fr", "Combien y a-t-il de minutes dans une heure ?", "Il y a 60 minutes dans une heure."),
    ("fr", "Cite les jours de la semaine.", "Lundi, mardi, mercredi, jeudi, vendredi, samedi et dimanche."),
    ("fr", "Quelles sont les quatre saisons ?", "Les quatre saisons sont le printemps, l'été, l'automne et l'hiver."),
    ("fr", "Pourquoi le ciel est-il bleu ?", "L'air diffuse davantage la lumière bleue que la rouge : le ciel paraît donc bleu."),
    ("fr", "Qu'est-ce que la photosynthèse ?",
     "La photosynthèse permet aux plantes de fabriquer du sucre et de l'oxygène avec la lumière, l'eau et le gaz carbonique."),
    ("fr", "À quelle température l'eau bout-elle ?", "Au niveau de la mer, l'eau bout à 100 degrés Celsius."),
    ("fr", "À quelle température l'eau gèle-t-elle ?", "L'eau gèle à 0 degré Celsius."),
    ("fr", "Combien de pattes a une araignée ?", "Une araignée a huit pattes."),
    ("fr", "Sur quelle planète vivons-nous ?", "Nous vivons sur la planète Terre."),
    ("fr", "Quel est le plus grand océan ?", "L'océan Pacifique est le plus grand océan du monde."),
    ("fr", "Qui a peint la Joconde ?", "Léonard de Vinci a peint la Joconde."),
    ("fr", "Qui a écrit Les Misérables ?", "Victor Hugo a écrit Les Misérables."),
    ("fr", "Qui a écrit Le Petit Prince ?", "Antoine de Saint-Exupéry a écrit Le Petit Prince."),
    ("fr", "Bonjour !", "Bonjour ! Comment puis-je vous aider ?"),
    ("fr", "Salut, ça va ?", "Je suis prêt à vous aider. De quoi voulez-vous parler ?"),
    ("fr", "Merci.", "Je vous en prie !"),
    ("fr", "Au revoir.", "Au revoir, et bonne journée !"),
    ("fr", "Qui es-tu ?", "Je suis un petit assistant qui fonctionne sur cette machine grâce à Causerie. Je peux me tromper : vérifiez ce qui compte."),
    ("fr", "Es-tu ChatGPT ?", "Non. Je suis un petit assistant qui fonctionne sur votre propre machine grâce à Causerie."),
    ("fr", "Peux-tu te tromper ?", "Oui, souvent. Je suis un petit modèle : vérifiez ce qui compte."),
    ("fr", "Quel temps fera-t-il demain ?", "Je ne peux pas le savoir : je n'ai pas accès à la météo."),
    ("fr", "Donne-moi trois conseils pour rester en bonne santé.",
     "1. Mangez des fruits et des légumes chaque jour.\n2. Marchez ou faites du sport une demi-heure par jour.\n3. Dormez sept à huit heures par nuit."),
    ("fr", "Donne-moi trois conseils pour mieux dormir.",
     "1. Couchez-vous à la même heure chaque soir.\n2. Évitez les écrans et le café en soirée.\n3. Gardez une chambre sombre, calme et fraîche."),
    ("fr", "Réécris poliment : Envoie-moi le rapport.", "Pourriez-vous m'envoyer le rapport dès que possible, s'il vous plaît ?"),
    ("fr", "Propose un nom pour une boulangerie.", "Le Fournil doré"),
    ("fr", "Propose un nom pour une librairie.", "Au fil des pages"),
    ("fr", "Écris une phrase sur le printemps.", "Au printemps, les jours rallongent et les premières fleurs s'ouvrent."),
    ("fr", "Écris un court poème sur la mer.",
     "La mer respire au gré du vent,\nElle chante sous le ciel clair,\nEt chaque vague, doucement,\nRevient nous raconter la mer."),
]  # fmt: skip


def rows(seed: int = 0, arithmetic: int = 240, lists: int = 120) -> Iterator[dict]:
    """Chat rows of every drill, in a fixed order; `arithmetic` and `lists` are how many of each are drawn per language."""
    draw = random.Random(seed)
    yield from (_row(*item) for item in FIXED)
    yield from _capitals(draw)
    yield from _words()
    yield from _calendar()
    for _ in range(arithmetic):
        yield from _arithmetic(draw)
    for _ in range(lists):
        yield from _lists(draw)


def _row(lang: str, question: str, answer: str) -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "lang": lang, "source": "causerie-basics", "license": "Apache-2.0"}


def _capitals(draw: random.Random) -> Iterator[dict]:
    for country, pays, city, ville in CAPITALS:
        yield _row("en", f"What is the capital of {country}?", f"The capital of {country} is {city}.")
        de = _de(pays)
        yield _row("fr", f"Quelle est la capitale {de} ?", f"La capitale {de} est {ville}.")
        if draw.random() < 0.5:
            yield _row("en", f"{city} is the capital of which country?", f"{city} is the capital of {country}.")
            yield _row("fr", f"De quel pays {ville} est-elle la capitale ?", f"{ville} est la capitale {de}.")


def _de(pays: str) -> str:
    if pays.startswith("le "):
        return "du " + pays[3:]
    if pays.startswith("les "):
        return "des " + pays[4:]
    return "de " + pays


def _words() -> Iterator[dict]:
    for english, french, article in WORDS:
        full = f"{article}{french}" if article.endswith("'") else f"{article} {french}".strip()
        noun = f"“{english}”"
        yield _row("en", f"How do you say {noun} in French?", f"“{english.capitalize()}” is “{full}” in French.")
        yield _row(
            "fr",
            f"Comment dit-on « {french} » en anglais ?",
            f"« {french.capitalize()} » se dit « {english} » en anglais.",
        )
        yield _row("en", f"Translate to French: {english}", full)
        yield _row("fr", f"Traduis en anglais : {french}", english)
    for a, b, c, d in OPPOSITES:
        yield _row("en", f"What is the opposite of “{a}”?", f"The opposite of “{a}” is “{b}”.")
        yield _row("fr", f"Quel est le contraire de « {c} » ?", f"Le contraire de « {c} » est « {d} ».")


def _calendar() -> Iterator[dict]:
    for english, french, thing, chose in ((DAYS[0], DAYS[1], "day", "jour"), (MONTHS[0], MONTHS[1], "month", "mois")):
        n = len(english)
        for i in range(n):
            after, before = (i + 1) % n, (i - 1) % n
            yield _row("en", f"Which {thing} comes after {english[i]}?", f"{english[after]} comes after {english[i]}.")
            yield _row(
                "en", f"Which {thing} comes before {english[i]}?", f"{english[before]} comes before {english[i]}."
            )
            yield _row("fr", f"Quel {chose} vient après {french[i]} ?", f"Après {french[i]} vient {french[after]}.")
            yield _row("fr", f"Quel {chose} vient avant {french[i]} ?", f"Avant {french[i]} vient {french[before]}.")


def _arithmetic(draw: random.Random) -> Iterator[dict]:
    kind = draw.choice("++--*")
    a, b = (draw.randint(2, 12), draw.randint(2, 10)) if kind == "*" else (draw.randint(1, 60), draw.randint(1, 40))
    if kind == "-":
        a, b = max(a, b), min(a, b)
    result = {"+": a + b, "-": a - b, "*": a * b}[kind]
    sign = {"+": "+", "-": "-", "*": "×"}[kind]
    word = {"+": "plus", "-": "minus", "*": "times"}[kind]
    mot = {"+": "plus", "-": "moins", "*": "fois"}[kind]
    yield _row("en", f"What is {a} {draw.choice([sign, word])} {b}?", f"{a} {sign} {b} = {result}")
    yield _row("fr", f"Combien font {a} {draw.choice([sign, mot])} {b} ?", f"{a} {sign} {b} = {result}")


def _lists(draw: random.Random) -> Iterator[dict]:
    group, things, groupe, choses = draw.choice(GROUPS)
    count = draw.randint(2, 5)
    picked = draw.sample(range(len(things)), count)
    some, quelques = [things[i] for i in picked], [choses[i] for i in picked]
    number = ["", "", "two", "three", "four", "five"][count]
    nombre = ["", "", "deux", "trois", "quatre", "cinq"][count]
    shape = draw.choice(["bullets", "commas", "json", "upper", "numbered"])
    if shape == "bullets":
        yield _row("en", f"List {number} {group} as bullet points.", "\n".join(f"* {t}" for t in some))
        yield _row("fr", f"Donne {nombre} {groupe} sous forme de liste à puces.", "\n".join(f"* {t}" for t in quelques))
    elif shape == "commas":
        yield _row("en", f"Name {number} {group}, separated by commas.", ", ".join(some))
        yield _row("fr", f"Cite {nombre} {groupe}, séparés par des virgules.", ", ".join(quelques))
    elif shape == "json":
        yield _row("en", f"Give me {number} {group} as a JSON list.", json.dumps(some))
        yield _row("fr", f"Donne {nombre} {groupe} dans une liste JSON.", json.dumps(quelques, ensure_ascii=False))
    elif shape == "upper":
        yield _row("en", f"Name {number} {group} in capital letters.", ", ".join(some).upper())
        yield _row("fr", f"Cite {nombre} {groupe} en majuscules.", ", ".join(quelques).upper())
    else:
        yield _row(
            "en", f"Make a numbered list of {number} {group}.", "\n".join(f"{i}. {t}" for i, t in enumerate(some, 1))
        )
        yield _row(
            "fr",
            f"Fais une liste numérotée de {nombre} {groupe}.",
            "\n".join(f"{i}. {t}" for i, t in enumerate(quelques, 1)),
        )
