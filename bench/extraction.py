"""Main text on real pages with gold segments: ours beside trafilatura and resiliparse, F and pages per second."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from causerie.core import data_pack
from causerie.data import extract_html, iter_documents

LIMIT = 120


def pages(folder: Path) -> list[tuple[bytes, list[str], list[str]]]:
    gold = json.loads((folder / "pages-0000.gold.json").read_text(encoding="utf-8"))
    by_url = gold if isinstance(gold, dict) else {row["url"]: row for row in gold}
    found = []
    for document in iter_documents(folder / "pages-0000.warc.gz"):
        row = by_url.get(document.url)
        if row and document.body:
            found.append((document.body, row["with"], row["without"]))
    return found[:LIMIT]


def score(texts: list[str], gold: list[tuple[bytes, list[str], list[str]]]) -> float:
    """F of segments: true positives are wanted segments found, false positives unwanted ones found."""
    hit = missed = wrong = 0
    for text, (_, wanted, unwanted) in zip(texts, gold, strict=True):
        hit += sum(segment in text for segment in wanted)
        missed += sum(segment not in text for segment in wanted)
        wrong += sum(segment in text for segment in unwanted)
    precision, recall = hit / max(hit + wrong, 1), hit / max(hit + missed, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9)


def main() -> None:
    pack = data_pack()
    if pack is None:
        print("left out: the data pack is not here (CAUSERIE_DATA)")
        sys.exit(0)
    gold = pages(pack / "warc" / "pages")
    readers: dict[str, Callable[[bytes], str]] = {
        "causerie": lambda html: extract_html(html).text,
        "trafilatura fast": lambda html: trafilatura.extract(html, fast=True, deduplicate=False) or "",
        "resiliparse": lambda html: extract_plain_text(bytes_to_str(html, detect_encoding(html)), main_content=True),
    }
    print(f"{len(gold)} pages")
    speeds = {}
    for name, read in readers.items():
        started = time.process_time()
        texts = [read(html) for html, _, _ in gold]
        speeds[name] = len(gold) / (time.process_time() - started)
        print(f"{name:18} F {score(texts, gold):.3f}  {speeds[name]:.0f} pages per CPU second")
    print(f"speed against trafilatura fast: {speeds['causerie'] / speeds['trafilatura fast']:.2f}")


if __name__ == "__main__":
    main()
