"""Planted near-duplicates: recall and precision of our search beside the usual MinHash bands, 14×8 and 32×4.

Real documents with copies of them of which 1, 2 or 5 % of the words were exchanged for words of other documents, and
the planted file of the data pack. "wrong" is a document dropped for one that it is no copy of. Repeat with

    .venv/bin/python bench/near_duplicates.py [--quick]
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zstandard
from rensa import RMinHash

from causerie.core import data_pack
from causerie.data.dedup import Thresholds, minhash, shingles, words_digest
from causerie.data.duplicates import DuplicateFinder
from causerie.data.filters import hash_words, words_of

Found = dict[int, int]


def documents(path: Path, count: int) -> list[dict[str, str]]:
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(path.open("rb"), closefd=True)
    found = []
    for line in io.TextIOWrapper(reader, "utf-8", newline="\n"):
        found.append(json.loads(line))
        if len(found) == count:
            break
    return found


def planted(texts: Sequence[str], shares: Sequence[float]) -> tuple[list[str], list[int], list[str]]:
    """The texts, then copies of each with exactly a share of the words exchanged: texts, cluster and kind of each."""
    chance = random.Random(7)
    words = [word for text in texts[:200] for word in text.split()]
    made, clusters, kinds = list(texts), list(range(len(texts))), ["original"] * len(texts)
    for share in shares:
        for number, text in enumerate(texts):
            parts = text.split(" ")
            places = [place for place, part in enumerate(parts) if part.strip()]
            for place in chance.sample(places, max(1, round(share * len(places)))):
                parts[place] = chance.choice(words)
            made.append(" ".join(parts))
            clusters.append(number)
            kinds.append(f"{share:.0%} changed")
    return made, clusters, kinds


def ours(texts: Sequence[str], memory: int = 64 << 20) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        finder = DuplicateFinder(Path(folder), Thresholds(), memory)
        for text in texts:
            words = hash_words(words_of(text))
            finder.add(minhash(words), words_digest(words))
        found = finder.find(enumerate(texts))
    return {int(number): int(found.of[number]) for number in np.flatnonzero(found.rule)}


def banded(bands: int, rows: int) -> Callable[[Sequence[str]], Found]:
    """MinHash of 5-word shingles in bands, every shared band a duplicate of the first that has it: no verification."""

    def run(texts: Sequence[str]) -> Found:
        first: list[dict[bytes, int]] = [{} for _ in range(bands)]
        found: Found = {}
        for number, text in enumerate(texts):
            hashes = shingles(hash_words(words_of(text)), 5).tolist()
            matrix = RMinHash.digest_matrix_from_token_hash_sets([hashes], bands * rows, 1)
            signature = np.asarray(matrix.to_rows()[0], np.uint32).reshape(bands, rows)
            keys = [part.tobytes() for part in signature]
            seen = [first[band][key] for band, key in enumerate(keys) if key in first[band]]
            if seen:
                found[number] = min(seen)
            else:
                for band, key in enumerate(keys):
                    first[band][key] = number
        return found

    return run


def table(name: str, texts: Sequence[str], clusters: Sequence[object], kinds: Sequence[str]) -> None:
    size = sum(map(len, texts)) / 1e6
    total = Counter(kinds)
    order = [kind for kind in total if kind != "original"]
    print(f"\n{name}: {len(texts)} documents, {size:.1f} MB")
    print(f"{'':24} {'precision':>9} {'wrong':>5} {'docs/CPU s':>10}  " + "  ".join(f"{kind}" for kind in order))
    rows = {"causerie": ours, "MinHash 14x8 (FineWeb)": banded(14, 8), "MinHash 32x4, unverified": banded(32, 4)}
    for label, run in rows.items():
        begun = time.process_time()
        found = run(texts)
        seconds = time.process_time() - begun
        hit: dict[str, int] = defaultdict(int)
        for number, of in found.items():
            hit[kinds[number]] += clusters[number] == clusters[of]
        right = sum(clusters[number] == clusters[of] for number, of in found.items())
        cells = "  ".join(f"{hit[kind] / total[kind]:.3f}".ljust(len(kind)) for kind in order)
        share = right / max(len(found), 1)
        print(f"{label:24} {share:9.4f} {len(found) - right:5} {len(texts) / seconds:10.0f}  {cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    pack = data_pack()
    if pack is None:
        print("left out: the data pack is not here (CAUSERIE_DATA)")
        sys.exit(0)
    count = 300 if quick else 2000
    rows = documents(pack / "pretrain" / "en-000.jsonl.zst", 4 * count)
    texts = [row["text"][:20_000] for row in rows if len(row["text"].split()) >= 50][:count]
    table("exact shares changed", *planted(texts, (0.01, 0.02, 0.05)))
    given = documents(pack / "eval" / "dedup" / "planted.jsonl.zst", 0)
    given.sort(key=lambda row: row["kind"] != "original")
    table(
        "the pack's planted file", [r["text"] for r in given], [r["cluster"] for r in given], [r["kind"] for r in given]
    )


if __name__ == "__main__":
    main()
