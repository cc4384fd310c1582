"""Choose the tokens that English and French keep of Gemma's vocabulary, and write the starter's bitmap.

    python scripts/cut_vocabulary.py starter.gguf ../shared/data --size 80000

Counts tokens per source in 19 of 20 documents of the data pack (all but its non-commercial sets), weighs languages
alike and sources by at most `CAP` tokens, keeps the most frequent ones, and reports on the held-out documents
which share of their tokens was dropped. Needs about two minutes and 3 GB.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from causerie.model import open_gguf
from causerie.text import Tokenizer, spm_to_tokenizer_json, spm_tokenizer

CAP = 3_000_000
DOCUMENT_CHARACTERS = 20_000
ENGLISH_SHARE = 9  # of 20 documents: English is three times as large as French in the pack
PREFERENCES = ("helpful-base", "helpful-online", "harmless-base")
CHAT = {
    "en": (
        "sft/dolly_3k.json",
        "sft/self_instruct_seed_tasks.jsonl",
        "sft/p3_t0_sample.jsonl.gz",
        *(f"preference/hh-rlhf/{part}/train.jsonl.gz" for part in PREFERENCES),
    ),
    "fr": ("sft/oasst_fr_1k.jsonl",),
}


def texts(pack: Path) -> Iterator[tuple[str, str, str]]:
    """(language, source, text) of everything that is counted or held out."""
    for path in sorted(pack.glob("pretrain/??-*.jsonl.zst")):
        with open(path, "rb") as file:
            stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file)
            for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
                row = json.loads(line)
                yield row["lang"], row["source"], row["text"][:DOCUMENT_CHARACTERS]
    for language, names in CHAT.items():
        for name in names:
            data = (pack / name).read_bytes()
            content = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
            rows = json.loads(content) if name.endswith(".json") else [json.loads(x) for x in content.split("\n") if x]
            for row in rows:
                yield language, name, "\n".join(strings(row))


def strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def bucket(text: str) -> int:
    """0 to 19, by content."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 20


def always_kept(tokens: list[str], types: list[int], tokenizer: Tokenizer) -> set[int]:
    """Bytes, special tokens except the unused ones, Latin, Greek and punctuation characters, chat headers."""
    kept = {number for number, kind in enumerate(types) if kind == 6}
    kept |= {n for n, kind in enumerate(types) if kind in (2, 3, 4) and not tokens[n].startswith("<unused")}
    kept |= {n for n, token in enumerate(tokens) if types[n] == 1 and len(token) == 1 and is_common(ord(token))}
    for header in ("user\n", "model\n", "assistant\n", "system\n"):
        kept.update(tokenizer.encode(header))
    return kept


def is_common(code: int) -> bool:
    """Latin, Greek, punctuation, currency, arrows, mathematics, pictographs."""
    return code < 0x400 or 0x1E00 <= code < 0x2C00 or 0x1F300 <= code < 0x1FB00


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--size", type=int, default=80_000)
    parser.add_argument("--out", type=Path, default=Path("causerie/starter/assets/vocabulary-en-fr.npy"))
    asked = parser.parse_args()
    metadata = open_gguf(asked.gguf).metadata
    tokens, scores, types = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    tokenizer = spm_tokenizer(spm_to_tokenizer_json(tokens, scores, types)[0])
    counts: dict[tuple[str, str], np.ndarray] = {}
    held: dict[tuple[str, str], np.ndarray] = {}
    for language, source, text in texts(asked.pack):
        number = bucket(text)
        if language == "en" and "/" not in source and number > ENGLISH_SHARE:
            continue
        into = held if number == 0 else counts
        into.setdefault((language, source), np.zeros(len(tokens), np.int64))
        into[language, source] += np.bincount(tokenizer.encode(text), minlength=len(tokens))
    keep = chosen(counts, always_kept(tokens, types, tokenizer), asked.size)
    _, old = spm_to_tokenizer_json(tokens, scores, types, keep)
    bits = np.zeros(len(tokens), np.uint8)
    bits[old] = 1
    np.save(asked.out, np.packbits(bits), allow_pickle=False)
    report(held, bits)
    print(f"{len(old)} tokens kept", file=sys.stderr)


def chosen(counts: dict[tuple[str, str], np.ndarray], always: set[int], size: int) -> set[int]:
    """The tokens of highest weighted frequency, languages alike, beside those always kept."""
    weight: dict[str, Any] = {"en": 0.0, "fr": 0.0}
    total = {"en": 0.0, "fr": 0.0}
    for (language, _), found in counts.items():
        share = min(found.sum(), CAP)
        weight[language] = weight[language] + found / max(found.sum(), 1) * share
        total[language] += share
    score = weight["en"] / total["en"] + weight["fr"] / total["fr"]
    keep = set(always)
    for number in np.argsort(-score, kind="stable"):
        if len(keep) >= size or score[number] == 0:
            break
        keep.add(int(number))
    return keep


def report(held: dict[tuple[str, str], np.ndarray], bits: np.ndarray) -> None:
    """Share of held-out tokens that were dropped, by source and by language."""
    for language in ("en", "fr"):
        rows = {source: found for (tongue, source), found in held.items() if tongue == language}
        for source, found in sorted(rows.items()):
            print(f"{language} {source:34} {found.sum():9} tokens  {found[bits == 0].sum() / found.sum():7.3%} dropped")
        both = sum(rows.values())
        mean = np.mean([found[bits == 0].sum() / found.sum() for found in rows.values()])
        print(f"{language} all {both[bits == 0].sum() / both.sum():.3%} dropped, mean over sources {mean:.3%}")


if __name__ == "__main__":
    main()
