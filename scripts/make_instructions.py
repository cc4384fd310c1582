"""Make the instruction and preference files: the small ones that ship with the demo, the larger ones the starter learns from.

    python scripts/make_instructions.py --pack ../shared/data --demo causerie/demo/assets
    python scripts/make_instructions.py --pack ../shared/data --starter workspace/starter-data

Only sets whose licence allows passing them on are read: Dolly (CC BY-SA 3.0), OASST1 in French and the OASST export
trees (Apache-2.0), the self-instruct seed tasks (Apache-2.0), GSM8K (MIT), hh-rlhf "helpful" (MIT) and our own drills.
Output is a pure function of the pack and the seed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import basics

UNFIT = re.compile(
    r"\b(kill|murder|suicid\w*|sex\w*|porn\w*|rape\w*|drugs?|cocaine|heroin|weapons?|guns?|bombs?|nazi\w*|racis\w*|terroris\w*|"
    r"nude|naked|penis|vagina|slut|whore|fuck\w*|shit\w*|bitch\w*|damn|steal\w*|illegal\w*|hitler|viol(?:er|s)?|tuer|drogue)\b",
    re.IGNORECASE,
)


HELD_OUT = 0.04
"""Share of questions kept apart: the guard set of the demo is never trained on, by the starter neither."""


def lines(path: Path) -> Iterator[dict]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def row(messages: list[tuple[str, str]], lang: str, source: str, licence: str) -> dict:
    turns = [{"role": role, "content": content.strip()} for role, content in messages]
    return {"messages": turns, "lang": lang, "source": source, "license": licence}


def dolly(pack: Path, sortings: int = 150) -> Iterator[dict]:
    """Dolly rows; of its many "identify which of these" rows only the first `sortings`, lest they set the tone."""
    for item in json.loads((pack / "sft/dolly_3k.json").read_text(encoding="utf-8")):
        if item["category"] == "classification":
            sortings -= 1
            if sortings < 0:
                continue
        question = item["instruction"] + ("\n\n" + item["input"] if item["input"].strip() else "")
        yield row([("user", question), ("assistant", item["output"])], "en", "dolly", "CC-BY-SA-3.0")


def oasst_fr(pack: Path) -> Iterator[dict]:
    for item in lines(pack / "sft/oasst_fr_1k.jsonl"):
        turns = [("user" if t["role"] == "UTILISATEUR" else "assistant", t["content"]) for t in item["conversation"]]
        while turns and turns[-1][0] != "assistant":
            turns.pop()
        if turns and turns[0][0] == "user":
            yield row(turns[:4], "fr", "oasst1-fr", "Apache-2.0")


def oasst_en(pack: Path) -> Iterator[dict]:
    for tree in lines(pack / "sft/oasst_export_trees_en_100.jsonl.gz"):
        replies = [r for r in tree["prompt"]["replies"] if not r["deleted"] and r.get("rank") in (0, None)]
        for reply in replies[:1]:
            yield row(
                [("user", tree["prompt"]["text"]), ("assistant", reply["text"])], "en", "oasst-trees", "Apache-2.0"
            )


def seeds(pack: Path) -> Iterator[dict]:
    for item in lines(pack / "sft/self_instruct_seed_tasks.jsonl"):
        case = item["instances"][0]
        question = item["instruction"] + ("\n\n" + case["input"] if case["input"].strip() else "")
        yield row([("user", question), ("assistant", case["output"])], "en", "self-instruct-seeds", "Apache-2.0")


def gsm8k(pack: Path) -> Iterator[dict]:
    for item in lines(pack / "sft/gsm8k_train.jsonl.gz"):
        answer = re.sub(r"<<.*?>>", "", item["answer"]).replace("####", "The answer is")
        yield row([("user", item["question"]), ("assistant", answer)], "en", "gsm8k", "MIT")


def formats(rows_in: list[dict], seed: int, count: int) -> Iterator[dict]:
    """Answers rewritten to a format that was asked for, so that the model learns to obey one; own wording."""
    draw = random.Random(seed)
    short = [r for r in rows_in if len(r["messages"]) == 2 and 20 <= len(r["messages"][1]["content"]) <= 350]
    for item in draw.sample(short, min(count, len(short))):
        question, answer = item["messages"][0]["content"], item["messages"][1]["content"]
        ask, done = draw.choice(FORMATS[item["lang"]])
        shaped = done(answer)
        if shaped:
            yield row(
                [("user", f"{question}\n{ask}"), ("assistant", shaped)],
                item["lang"],
                item["source"] + "+format",
                item["license"],
            )


def _bullets(text: str) -> str:
    parts = [p.strip() for p in re.split(r"(?<=[.!?])\s+", text) if p.strip()]
    return "\n".join(f"* {p}" for p in parts) if 2 <= len(parts) <= 6 else ""


FORMATS = {
    "en": [
        ("Use only small letters.", str.lower),
        ("Write the whole answer in capitals.", str.upper),
        ("Put your answer between double quotation marks.", lambda t: '"' + t.replace('"', "'") + '"'),
        ("Leave out all commas.", lambda t: t.replace(",", "")),
        ("Give the answer as bullet points.", _bullets),
        ("Finish with the words: Is there anything else I can do?", lambda t: t + "\n\nIs there anything else I can do?"),
        ("Begin with a title in double angle brackets.", lambda t: f"<<{t.split('.')[0][:40].strip()}>>\n\n{t}"),
        ("Add a postscript that begins with P.S.", lambda t: t + "\n\nP.S. Please check what matters to you."),
        ("Say the question again first, then answer it.", lambda t: ""),
    ],
    "fr": [
        ("Utilise seulement des minuscules.", str.lower),
        ("Écris toute la réponse en majuscules.", str.upper),
        ("Mets ta réponse entre guillemets.", lambda t: "« " + t.replace("«", "").replace("»", "") + " »"),
        ("N'utilise aucune virgule.", lambda t: t.replace(",", "")),
        ("Réponds sous forme de liste à puces.", _bullets),
        ("Termine par ces mots : Puis-je faire autre chose ?", lambda t: t + "\n\nPuis-je faire autre chose ?"),
    ],
}  # fmt: skip


def fits(item: dict, longest: int) -> bool:
    """Whether a row is short enough, complete, and free of words that do not belong in a demo."""
    texts = [m["content"] for m in item["messages"]]
    return all(texts) and sum(map(len, texts)) <= longest and not UNFIT.search(" ".join(texts))


def held_out(item: dict, share: float) -> bool:
    """Split by the first question, so that no question stands on both sides."""
    digest = hashlib.sha256(item["messages"][0]["content"].split("\n")[0].encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share


def hh_pairs(pack: Path, names: Iterable[str], longest: int) -> Iterator[dict]:
    for name in names:
        for item in lines(pack / f"preference/hh-rlhf/{name}/train.jsonl.gz"):
            both = item["chosen"] + item["rejected"]
            if max(len(item["chosen"]), len(item["rejected"])) <= longest and not UNFIT.search(both):
                yield {**item, "source": f"hh-rlhf/{name}", "license": "MIT", "lang": "en"}


def save(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    path.write_text(text, encoding="utf-8", newline="\n")
    languages = Counter(r.get("lang") for r in rows)
    print(f"{path}: {len(rows)} rows, {len(text.encode()):,} bytes, {dict(languages)}")


def shuffled(rows: Iterable[dict], seed: int) -> list[dict]:
    listed = list(rows)
    random.Random(seed).shuffle(listed)
    return listed


def make_demo(pack: Path, folder: Path, seed: int) -> None:
    rows = [r for source in (dolly, oasst_fr, seeds) for r in source(pack) if len(r["messages"]) == 2]
    human = [r for r in rows if fits(r, 420 if r["lang"] == "en" else 900)]  # French answers run longer; keep enough
    drilled = {r["messages"][0]["content"] for r in basics.rows(seed)}
    held = [r for r in human if held_out(r, HELD_OUT) and r["messages"][0]["content"] not in drilled]
    train = [r for r in human if not held_out(r, HELD_OUT)]
    drills = list(basics.rows(seed, arithmetic=60, lists=40))
    save(folder / "instructions.jsonl", shuffled(train + drills, seed))
    save(folder.parent.parent / "loop" / "assets" / "guard.jsonl", shuffled(held, seed))
    save(folder / "choices.jsonl", shuffled(hh_pairs(pack, ["helpful-base"], 420), seed)[:700])


def make_starter(pack: Path, folder: Path, seed: int) -> None:
    human = [r for source in (dolly, oasst_fr, oasst_en, seeds) for r in source(pack) if fits(r, 1800)]
    held = [r for r in human if held_out(r, HELD_OUT)]
    train = [r for r in human if not held_out(r, HELD_OUT)]
    sums = list(shuffled((r for r in gsm8k(pack) if fits(r, 500)), seed))[:350]
    shaped = list(formats(train, seed, 1300))
    drills = list(basics.rows(seed))
    save(folder / "train.jsonl", shuffled(train + sums + shaped + drills, seed))
    save(folder / "heldout.jsonl", shuffled(held, seed))
    pairs = shuffled(hh_pairs(pack, ["helpful-base", "helpful-online", "helpful-rejection-sampled"], 900), seed)
    save(folder / "choices.jsonl", pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--starter", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.demo:
        make_demo(options.pack, options.demo, options.seed)
    if options.starter:
        make_starter(options.pack, options.starter, options.seed)


if __name__ == "__main__":
    main()
