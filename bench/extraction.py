"""Main text of real pages: ours beside trafilatura, readability, resiliparse and justext, F and pages per CPU second.

    .venv/bin/python bench/extraction.py --peer-python PYTHON_WITH_READABILITY --benchmark CLONE

Two benchmarks. "articles" is scrapinghub/article-extraction-benchmark, scored as its `evaluate.py` does (four-word
shingles, precision and recall averaged over pages): 181 pages in a clone of that repository, 136 in the data pack.
"gold" is trafilatura's own evaluation, 796 pages with segments that must and must not be in the text. Our thresholds
were tuned on one half of the pages (by a hash of their names); the other half ("unseen") is printed as well, though both were
looked at while variants were chosen.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import statistics
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import justext
import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from causerie.core import data_pack
from causerie.data import extract_html, iter_documents
from causerie.data.extract import decode_html

READABILITY = """
import json, sys, time
from lxml import html
from readability import Document
best = {}
for round_ in range(int(sys.argv[1])):
    for number, page in enumerate(json.load(open(sys.argv[2]))):
        begun = time.thread_time()
        try:
            text = html.fromstring(Document(page).summary(html_partial=True)).text_content()
        except Exception:
            text = ""
        spent = time.thread_time() - begun
        if number not in best or spent < best[number][1]:
            best[number] = (text, spent)
json.dump(list(best.values()), sys.stdout)
"""
Score = tuple[float, float, float]


@dataclass(frozen=True)
class Page:
    name: str
    html: bytes
    article: str | None = None
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


def articles(place: Path) -> list[Page]:
    if place.is_dir():
        gold = json.loads((place / "ground-truth.json").read_text(encoding="utf-8"))
        return [
            Page(name, gzip.decompress((place / "html" / f"{name}.html.gz").read_bytes()), gold[name]["articleBody"])
            for name in sorted(gold)
        ]
    with zipfile.ZipFile(io.BytesIO(place.read_bytes())) as packed:
        gold = json.loads(packed.read("ground-truth.json"))
        return [
            Page(name, gzip.decompress(packed.read(f"html/{name}.html.gz")), gold[name]["articleBody"])
            for name in sorted(gold)
        ]


def gold_pages(folder: Path) -> list[Page]:
    found = []
    for path in sorted(folder.glob("*.gold.json")):
        gold = json.loads(path.read_text(encoding="utf-8"))
        for raw in iter_documents(path.with_name(path.name.replace(".gold.json", ".warc.gz"))):
            if raw.url in gold and raw.body:
                marks = gold[raw.url]
                found.append(Page(raw.url, raw.body, None, tuple(marks["with"]), tuple(marks["without"])))
    return found


def shingles(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[n : n + 4]) for n in range(max(1, len(words) - 3)) if words)


def article_f(pages: list[Page], texts: list[str]) -> Score:
    """The repository's measure: precision and recall of shingles by page, then their means."""
    precisions, recalls = [], []
    for page, text in zip(pages, texts, strict=True):
        true, found = shingles(page.article or ""), shingles(text)
        hit, extra, missed = ((true & found).total(), (found - true).total(), (true - found).total())
        if hit + extra:
            precisions.append(hit / (hit + extra))
        if hit + missed:
            recalls.append(hit / (hit + missed))
    precision, recall = statistics.mean(precisions), statistics.mean(recalls)
    return 2 * precision * recall / (precision + recall), precision, recall


def gold_f(pages: list[Page], texts: list[str]) -> Score:
    """Trafilatura's measure: wanted segments found, wanted ones missed, unwanted ones found, over all pages."""
    hit = missed = extra = 0
    for page, text in zip(pages, texts, strict=True):
        hit += sum(part in text for part in page.wanted)
        missed += sum(part not in text for part in page.wanted)
        extra += sum(part in text for part in page.unwanted)
    precision, recall = hit / max(hit + extra, 1), hit / max(hit + missed, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def tuned_on(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0


def read_justext(html: bytes) -> str:
    paragraphs = justext.justext(html, justext.get_stoplist("English"))
    return "\n".join(part.text for part in paragraphs if not part.is_boilerplate)


READERS: dict[str, Callable[[bytes], str]] = {
    "causerie": lambda html: extract_html(html).text,
    "trafilatura fast": lambda html: trafilatura.extract(html, fast=True, include_comments=False) or "",
    "trafilatura fast, as it comes": lambda html: trafilatura.extract(html, fast=True) or "",
    "resiliparse": lambda html: extract_plain_text(decode_html(html), main_content=True),
    "justext": read_justext,
}


def measure(pages: list[Page], rounds: int) -> dict[str, tuple[list[str], float]]:
    """Every reader's texts, and its CPU seconds: the least of some rounds for each page, readers taking turns."""
    texts = {name: [""] * len(pages) for name in READERS}
    spent = {name: [float("inf")] * len(pages) for name in READERS}
    for _ in range(rounds):
        for number, page in enumerate(pages):
            for name, read in READERS.items():
                begun = time.thread_time()
                try:
                    texts[name][number] = read(page.html)
                except Exception:  # a peer that fails on a page has read nothing
                    texts[name][number] = ""
                spent[name][number] = min(spent[name][number], time.thread_time() - begun)
    return {name: (texts[name], sum(spent[name])) for name in READERS}


def measure_readability(python: str, pages: list[Page], rounds: int) -> tuple[list[str], float]:
    listed = Path(__file__).with_suffix(".pages.json")
    try:
        listed.write_text(json.dumps([decode_html(page.html) for page in pages]))
        command = [python, "-c", READABILITY, str(rounds), str(listed)]
        rows = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    finally:
        listed.unlink(missing_ok=True)
    return [text for text, _ in rows], sum(seconds for _, seconds in rows)


def show(title: str, pages: list[Page], score: Callable[[list[Page], list[str]], Score], options) -> None:
    size = sum(len(page.html) for page in pages) / 1e6
    print(f"\n{title}: {len(pages)} pages, {size:.1f} MB; CPU time, best of {options.rounds}")
    print(f"{'':30} {'F':>6} {'unseen':>7} {'P':>6} {'R':>6} {'pages/s':>8} {'MB/s':>6}")
    found = measure(pages, options.rounds)
    if options.peer_python:
        found["readability"] = measure_readability(options.peer_python, pages, options.rounds)
    unseen = [number for number, page in enumerate(pages) if not tuned_on(page.name)]
    for name, (texts, seconds) in found.items():
        whole = score(pages, texts)
        half = score([pages[n] for n in unseen], [texts[n] for n in unseen])[0] if unseen else float("nan")
        speed = len(pages) / seconds
        print(
            f"{name:30} {whole[0]:6.3f} {half:7.3f} {whole[1]:6.3f} {whole[2]:6.3f} {speed:8.0f} {size / seconds:6.1f}"
        )
    ratio = found["trafilatura fast"][1] / found["causerie"][1]
    readers = Counter(extract_html(page.html).extractor for page in pages)
    print(f"speed against trafilatura fast: {ratio:.2f}   read by: {dict(readers.most_common())}")
    if not options.peer_python:
        print("readability left out: give --peer-python, a Python that has readability-lxml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", type=Path, help="a clone of scrapinghub/article-extraction-benchmark")
    parser.add_argument("--peer-python", help="a Python that has readability-lxml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="twenty pages of each, one round")
    options = parser.parse_args()
    pack = data_pack()
    if pack is None:
        print("left out: the data pack is not here (CAUSERIE_DATA)")
        sys.exit(0)
    if options.quick:
        options.rounds = 1
    limit = 20 if options.quick else None
    place = options.benchmark or pack / "eval" / "extraction" / "scrapinghub.zip"
    show("articles", articles(place)[:limit], article_f, options)
    show("gold", gold_pages(pack / "warc" / "pages")[:limit], gold_f, options)


if __name__ == "__main__":
    main()
