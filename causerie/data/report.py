"""The report of a corpus: one HTML page that needs nothing beside it, made from the ledger alone."""

from __future__ import annotations

import html
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np

from causerie.data.charts import bars, histogram, stacked, tiles
from causerie.data.ledger import read_ledger

SAMPLES: Final = 3
"""Documents shown for each rule; twice as many kept ones."""

RULES_SAID: Final = {
    "broken_record": "the record cannot be read",
    "http_status": "the server did not answer 200",
    "not_html": "an image, a script or another kind of file",
    "too_large": "larger than the page limit",
    "unreadable": "the page cannot be parsed",
    "too_slow": "took more than its CPU time",
    "crashed": "ended the process that read it",
    "empty": "no text was found in it",
    "language": "in another language",
    "mixed_language": "too much of it in another language, or code",
    "contaminated": "shares a run of words with an evaluation file",
    "exact_duplicate": "the same words as an earlier document",
    "near_duplicate": "nearly the same text as an earlier document",
    "too_short": "too few words",
    "too_long": "too many words",
    "word_length": "words too short or too long on average",
    "symbols": "too many hash signs or ellipses",
    "bullets": "nearly all lines are bullets",
    "ellipses": "lines end in ellipses",
    "few_letters": "too many tokens without a letter",
    "few_stop_words": "hardly a common word",
    "few_sentences": "hardly a sentence",
    "placeholder": "placeholder text",
    "code": "too many curly brackets",
    "no_sentences": "lines do not end like sentences",
    "short_lines": "nearly all lines are short",
    "list": "a list of words",
    "repeated_lines": "lines repeat",
    "repeated_paragraphs": "paragraphs repeat",
    "repeated_line_text": "much of the text in repeated lines",
    "repeated_paragraph_text": "much of the text in repeated paragraphs",
}


def write_report(corpus: Path, out: Path | None = None) -> Path:
    """Write `report.html` of a corpus folder; the same ledger gives the same bytes.

    Args:
        corpus: folder with `ledger.parquet`.
        out: where to write; by default into the folder, unless it is a finished artifact that has its report.

    Returns:
        The report's path.
    """
    target = out or corpus / "report.html"
    if out is None and target.exists() and (corpus / "manifest.json").exists():
        return target
    target.write_text(render(read_ledger(corpus).to_pylist()), encoding="utf-8")
    return target


def render(rows: list[dict[str, Any]]) -> str:
    """The report's HTML for the ledger's rows."""
    kept = [row for row in rows if row["kept"]]
    dropped = Counter(row["rule"] for row in rows if not row["kept"])
    parts = (
        f"<header><p class=eyebrow>Causerie corpus</p><h1>{len(kept):,} of {len(rows):,} documents kept</h1></header>",
        _figures(rows, kept),
        _section("Why documents were dropped", _rules(dropped), "Each document counts once, under the first rule."),
        _section("By source", _sources(rows), "Kept and dropped documents of each file."),
        _section("Languages", _languages(rows), "Main language of every text that was read; green: kept."),
        _section("Lengths", _lengths(kept), "Bytes of text in each kept document."),
        _section("Kept: examples", _samples(kept, 2 * SAMPLES)),
        _section("Dropped: examples", _dropped_samples(rows, dropped)),
        "<footer>Every document, with each measure and all rules it failed: <code>ledger.parquet</code>.</footer>",
    )
    return _PAGE.format(style=_STYLE, body="\n".join(parts))


def _section(title: str, body: str, note: str = "") -> str:
    said = f"<p class=note>{html.escape(note)}</p>" if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{said}{body}</section>"


def _figures(rows: list[dict[str, Any]], kept: list[dict[str, Any]]) -> str:
    size, taken = sum(row["bytes_in"] for row in rows), sum(row["bytes"] for row in kept)
    masked = sum(row["emails"] + row["phones"] + row["addresses"] for row in kept)
    repeated = sum(row["rule"] in ("exact_duplicate", "near_duplicate") for row in rows)
    share = len(kept) / max(len(rows), 1)
    return tiles(
        (
            (f"{taken / 1e6:.1f} MB", f"of text, from {size / 1e6:.1f} MB of input"),
            (f"{share:.0%}", "of the documents kept"),
            (f"{repeated:,}", "duplicates dropped"),
            (f"{masked:,}", "addresses and numbers masked"),
        )
    )


def _rules(dropped: Counter[str]) -> str:
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return bars([(rule, _said(rule), count) for rule, count in ordered]) or "<p>Nothing was dropped.</p>"


def _said(rule: str) -> str:
    if rule.startswith(("top_", "repeated_")) and "gram" in rule:
        return "one run of words over and over" if rule.startswith("top_") else "runs of words repeat"
    return RULES_SAID.get(rule, "")


def _sources(rows: list[dict[str, Any]]) -> str:
    kept: Counter[str] = Counter(row["source"] for row in rows if row["kept"])
    seen: Counter[str] = Counter(row["source"] for row in rows)
    hosts: Counter[str] = Counter(_host(row["url"]) for row in rows if row["url"])
    kept_hosts: Counter[str] = Counter(_host(row["url"]) for row in rows if row["url"] and row["kept"])
    table = stacked([(name, kept[name], count) for name, count in seen.most_common(20)])
    if hosts:
        table += "<h3>Sites</h3>" + stacked([(name, kept_hosts[name], count) for name, count in hosts.most_common(12)])
    return table


def _host(url: str) -> str:
    return url.split("://")[-1].split("/")[0].lower()


def _languages(rows: list[dict[str, Any]]) -> str:
    seen = Counter(row["lang"] for row in rows if row["lang"])
    kept = Counter(row["lang"] for row in rows if row["kept"])
    return stacked([(lang, kept[lang], count) for lang, count in seen.most_common(12)])


def _lengths(kept: list[dict[str, Any]]) -> str:
    edges = [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 10**9]
    counts, _ = np.histogram([row["bytes"] for row in kept], edges)
    names = [*(f"< {edge:,}" for edge in edges[1:-1]), "more"]
    return histogram(list(zip(names, (int(count) for count in counts), strict=True)))


def _dropped_samples(rows: list[dict[str, Any]], dropped: Counter[str]) -> str:
    blocks = []
    for rule, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
        found = [row for row in rows if row["rule"] == rule]
        title = f"<code>{html.escape(rule)}</code> <span>{count:,}</span>"
        blocks.append(f"<details><summary>{title}</summary>{_samples(found, SAMPLES)}</details>")
    return "".join(blocks) or "<p>Nothing was dropped.</p>"


def _samples(rows: list[dict[str, Any]], count: int) -> str:
    """A few documents, chosen by a hash of their ids: neither the first ones nor different ones each time."""
    chosen = sorted(rows, key=lambda row: blake2b(row["id"].encode("utf-8", "replace"), digest_size=8).digest())[:count]
    return "".join(_sample(row) for row in chosen)


def _sample(row: dict[str, Any]) -> str:
    name = html.escape(row["title"] or row["url"] or row["id"])
    facts = [row["lang"], f"{row['bytes']:,} bytes" if row["bytes"] else "", row["note"]]
    if row["duplicate_of"]:
        facts.append(f"{row['similarity']:.0%} like {row['duplicate_of']}")
    if len(row["failed"] or ()) > 1:
        facts.append("also " + ", ".join(row["failed"][1:4]))
    said = html.escape(" · ".join(filter(None, facts)))
    link = f"<p class=url>{html.escape(row['url'])}</p>" if row["url"] else ""
    text = f"<blockquote>{html.escape(row['excerpt'])}…</blockquote>" if row["excerpt"] else ""
    return f"<article><h4>{name}</h4><p class=facts>{said}</p>{link}{text}</article>"


_STYLE: Final = """
:root{--bg:#fbfaf7;--fg:#21252b;--soft:#6a7078;--line:#e4e0d8;--card:#fff;--bar:#b9c4d6;--kept:#2f6f5e;--accent:#b4552d}
@media(prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e6e4df;--soft:#9aa1ab;--line:#2c3138;--card:#1c2026;
--bar:#3d4a5f;--kept:#5fb39b;--accent:#e08a5f}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
.eyebrow{margin:0;color:var(--accent);font-weight:600;letter-spacing:.04em}
h1{font-size:2rem;line-height:1.2;margin:.2rem 0 1.5rem}h2{font-size:1.2rem;margin:0 0 .25rem}
h3{font-size:.95rem;margin:1.25rem 0 .5rem;color:var(--soft)}h4{margin:0;font-size:1rem}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.25rem 1.5rem;margin:1rem 0}
.note,.facts,.url,footer{color:var(--soft);font-size:.875rem;margin:.1rem 0 .75rem}.url{overflow-wrap:anywhere;margin:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1rem;margin:0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1rem 1.25rem}
.tiles dt{font-size:1.7rem;font-weight:650;line-height:1.2}.tiles dd{margin:0;color:var(--soft);font-size:.875rem}
table{width:100%;border-collapse:collapse;font-size:.9rem}td{padding:.22rem .5rem .22rem 0;vertical-align:middle}
td.name{white-space:nowrap;width:1%;max-width:20rem;overflow:hidden;text-overflow:ellipsis}
td.said{color:var(--soft);width:1%;white-space:nowrap}
td.count{text-align:right;width:1%;white-space:nowrap;font-variant-numeric:tabular-nums;padding-right:0;
padding-left:.75rem}
.bar{display:flex;height:.8rem;background:transparent;border-radius:4px;overflow:hidden;min-width:2px}
.bar i{display:block;background:var(--bar)}.bar i.kept{background:var(--kept)}
svg{width:100%;height:auto;display:block}svg rect{fill:var(--kept)}svg text{fill:var(--soft);font:12px system-ui}
svg text.value{fill:var(--fg)}article{border-top:1px solid var(--line);padding:.75rem 0}
article:first-of-type{border-top:0}blockquote{margin:.4rem 0 0;padding-left:.9rem;border-left:3px solid var(--line);
white-space:pre-wrap;overflow-wrap:anywhere;font-size:.9rem;max-height:11rem;overflow:auto}
details{border-top:1px solid var(--line);padding:.4rem 0}details:first-of-type{border-top:0}
summary{cursor:pointer;padding:.2rem 0}summary span{color:var(--soft);margin-left:.4rem}
code{font:.9em ui-monospace,monospace}
@media(max-width:40rem){td.said{display:none}h1{font-size:1.5rem}section{padding:1rem}}
"""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Causerie corpus</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""
