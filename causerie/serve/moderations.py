# ruff: noqa: E501 -- a rule is read best on one line
"""POST v1/moderations by word rules: English and French, in the open, and no more than what they are.

The model `causerie-words-1` looks for words and short phrases of each category. It finds what is said outright and
misses what is meant; its scores are 0 without a find, and the more finds per word, the nearer to 1. Texts only.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.keys import Principal
from causerie.serve.limits import MAX_EMBEDDINGS
from causerie.serve.metering import Meter
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.shapes import Short, Strict, Text
from causerie.store import new_id

MODEL: Final = "causerie-words-1"

WORDS: Final = {
    "harassment": (
        r"(you are|you're|ur) (a |an )?(complete |total )?(idiot|moron|loser|pathetic|worthless|disgusting|trash|scum)",
        r"shut up,? (you )?(idiot|moron|loser)|nobody likes you|everyone hates you",
        r"(tu es|t'es|vous etes) (un |une )?(vrai |vraie )?(idiote?|imbecile|debile|nulle?|minable|ordure|raclure|abrutie?)",
        r"ferme ta gueule|ta gueule|sale (con|conne|merde)|connard|connasse|personne ne t'aime",
    ),
    "harassment/threatening": (
        r"(i will|i'll|i'm going to|im gonna|i am going to) (kill|hurt|beat|find|shoot|stab|destroy) (you|your family)",
        r"you (will|are going to) (die|pay for this)|watch your back",
        r"je vais (te|vous) (tuer|frapper|retrouver|casser la gueule|egorger|faire la peau)|tu vas (mourir|crever|payer)",
    ),
    "hate": (
        r"(i hate|we hate|death to|get rid of) (all )?(the )?(jews|muslims|christians|blacks|whites|gays|immigrants|women|arabs)",
        r"(jews|muslims|blacks|immigrants|gays|women|arabs|gypsies) are (all )?(vermin|animals|subhuman|inferior|parasites|filth)",
        r"(je hais|on hait|mort aux|dehors les) (tous les )?(juifs|musulmans|chretiens|noirs|blancs|arabes|immigres|homos|gays|femmes)",
        r"les (juifs|musulmans|noirs|arabes|immigres|homos|gays|femmes|roms) sont (tous |toutes )?(des )?(vermines?|animaux|inferieurs|parasites|sous-hommes|inferieures)",
    ),
    "hate/threatening": (
        r"(kill|exterminate|shoot|gas|burn) (all )?(the )?(jews|muslims|christians|blacks|whites|gays|immigrants|women|arabs)",
        r"(tuer|exterminer|gazer|bruler|fusiller) (tous |toutes )?les (juifs|musulmans|noirs|arabes|immigres|homos|gays|femmes)",
    ),
    "illicit": (
        r"how (do i|to|can i) (make|cook|buy|sell|hide|launder|forge|steal|hack|break into|pick)\b.{0,40}\b(meth|cocaine|heroin|drugs|money|passport|credit cards?|car|house|account|bank)",
        r"comment (fabriquer|acheter|vendre|cacher|blanchir|falsifier|voler|pirater|forcer)\b.{0,40}\b(meth|cocaine|heroine|drogue|argent|passeport|cartes? (bancaire|de credit)|voiture|compte|banque|maison)",
    ),
    "illicit/violent": (
        r"how (do i|to|can i) (make|build|assemble|detonate|3d print)\b.{0,40}\b(bomb|explosives?|grenade|gun|silencer|nerve gas|pipe bomb)",
        r"comment (fabriquer|construire|assembler|faire exploser)\b.{0,40}\b(bombe|explosifs?|grenade|arme|silencieux|gaz de combat)",
    ),
    "self-harm": (
        r"(cut|cutting|hurting|harming|starving) (myself|yourself|themselves)|self[- ]?harm|suicide|suicidal|kill(ing)? (myself|yourself)",
        r"(me|te|se) (scarifier|mutiler|faire du mal|tuer|suicider)|suicide|suicidaire|automutilation|mettre fin a (mes|ses|tes) jours",
    ),
    "self-harm/intent": (
        r"i (want|need|am going|'m going|plan|wish) to (die|kill myself|end my life|hurt myself|cut myself)|i don't want to live",
        r"je (veux|vais|voudrais) (mourir|me tuer|me suicider|en finir|mettre fin a mes jours|me faire du mal)|je ne veux plus vivre",
    ),
    "self-harm/instructions": (
        r"(how to|how do i|best way to|painless way to) (kill myself|commit suicide|end my life|cut myself|hang myself|overdose)",
        r"comment (me tuer|me suicider|se suicider|en finir avec la vie|mettre fin a mes jours|me pendre|me mutiler)",
    ),
    "sexual": (
        r"\b(porn|pornographic|blowjob|handjob|cumshot|orgasm|masturbat\w+|erotic story|naked (girls|women|men)|hardcore sex|have sex with me)\b",
        r"\b(porno\w*|fellation|sodomie|orgasme|masturb\w+|recit erotique|sexe hard|couche avec moi|baise[rz]?[- ]moi)\b",
    ),
    "sexual/minors": (
        r"\b(sexual|naked|nude|erotic|porn\w*|sex)\b.{0,40}\b(child|children|kid|minor|underage|little (girl|boy)|1[0-7][- ]year[- ]old|toddler)\b",
        r"\b(child|children|kid|minor|underage|little (girl|boy)|1[0-7][- ]year[- ]old)\b.{0,40}\b(sexual|naked|nude|erotic|porn\w*|sex)\b",
        r"\b(sexuel\w*|nue?s?|erotique|porno\w*|sexe)\b.{0,40}\b(enfants?|mineure?s?|fillettes?|garconnets?|petite fille|petit garcon)\b|pedopornograph\w+",
    ),
    "violence": (
        r"\b(murder(ed|ing)?|massacre[ds]?|behead(ed|ing)?|tortur(e|ed|ing)|stabbed|slaughter(ed)?|shot (him|her|them) dead|kill (him|her|them|you))\b",
        r"\b(assassin(er|e|at)|massacre[rs]?|decapit\w+|tortur(er|e|es)|poignard\w+|egorg\w+|(le|la|les) tuer|abattre a bout portant)\b",
    ),
    "violence/graphic": (
        r"\b(blood (gushed|poured|sprayed|everywhere)|guts (spilled|spilling)|severed (head|limb|arm|leg)|entrails|disembowel\w*|brains? splattered|mutilated (body|corpse))\b",
        r"\b(sang (giclait|coulait a flots|partout)|tripes|entrailles|(tete|membre|bras|jambe) tranchee?s?|eventr\w+|cervelle eclatee|(corps|cadavre) mutile)\b",
    ),
}
"""What is looked for, in each of OpenAI's thirteen categories, in lower-case text without accents."""

_RULES: Final = {name: tuple(re.compile(rule) for rule in rules) for name, rules in WORDS.items()}


class TextInput(Strict):
    """A text among several inputs; images are not looked at."""

    type: Literal["text"]
    text: Text


class ModerationRequest(Strict):
    """POST v1/moderations."""

    input: Text | Annotated[list[Text | TextInput], Field(min_length=1, max_length=MAX_EMBEDDINGS)]
    model: Short | None = None

    def texts(self) -> list[str]:
        """The texts to look at; parts of one multi-part input are one text."""
        if isinstance(self.input, str):
            return [self.input]
        if any(isinstance(each, TextInput) for each in self.input):
            return [" ".join(each if isinstance(each, str) else each.text for each in self.input)]
        return [str(each) for each in self.input]


def plain(text: str) -> str:
    """Lower case, no accents, one kind of apostrophe, single spaces."""
    folded = unicodedata.normalize("NFKD", text.lower()).replace("’", "'")
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    return " ".join(bare.split())


def moderate(text: str) -> dict[str, float]:
    """A score for every category, 0 where nothing was found."""
    bare = plain(text)
    words = max(1, len(bare.split()))
    scores = {}
    for name, rules in _RULES.items():
        finds = sum(1 for rule in rules for _ in rule.finditer(bare))
        scores[name] = 0.0 if not finds else min(1.0, 0.5 + 0.5 * min(1.0, 5 * finds / words))
    return scores


async def create_moderation(office: Office, request: Request, principal: Principal) -> Response:
    """Which categories some texts fall under, by word rules; the model asked for does not change them."""
    asked = await read_shape(request, ModerationRequest)
    path = request.scope["route"].path
    with Meter(office.store, path, principal.key_id, project=principal.owner, tally=office.tally) as meter:
        results = await asyncio.to_thread(_results, asked.texts())
    headers = {"x-request-id": meter.request_id}
    return JSONResponse({"id": new_id("modr"), "model": MODEL, "results": results}, headers=headers)


def _results(texts: list[str]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for text in texts:
        scores = moderate(text)
        found = {name: score > 0 for name, score in scores.items()}
        results.append(
            {
                "flagged": any(found.values()),
                "categories": found,
                "category_scores": scores,
                "category_applied_input_types": {name: ["text"] for name in scores},
            }
        )
    return results


ROUTES: Final = (ApiRoute("POST", "moderations", create_moderation, "moderation", "create", body=ModerationRequest),)
