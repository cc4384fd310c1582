"""The report of a corpus: one HTML page that needs nothing beside it, made from its ledger and clusters alone."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path
from typing import Any, Final

from causerie.core import write_atomic
from causerie.data.charts import funnel, histogram, rules_table, stacked, tiles
from causerie.data.report_facts import EDGES, Facts, Row, gather
from causerie.data.report_style import PAGE, STYLE
from causerie.data.rules_said import STAGES, said, stage_of

BYTES_PER_TOKEN: Final = 4.0
"""For estimates before the corpus is packed; a bilingual vocabulary of 16,384 has 3.9."""
SOURCES: Final = 25
SITES: Final = 15


def write_report(corpus: Path, out: Path | None = None, shards: Path | None = None) -> Path:
    """Write `report.html` of a corpus folder; the same ledger gives the same bytes.

    Args:
        corpus: folder with `ledger.parquet`.
        out: where to write; by default into the folder, unless it is a finished artifact that has its report.
        shards: shards packed from the corpus: then tokens are counted, not estimated.

    Returns:
        The report's path.
    """
    target = out or corpus / "report.html"
    if out is None and target.exists() and (corpus / "manifest.json").exists():
        return target
    write_atomic(target, render(gather(corpus, shards)))
    return target


def render(facts: Facts) -> str:
    """The report's HTML."""
    title = f"{facts.kept:,} of {facts.seen:,} documents kept"
    parts = (
        f"<header><p class=eyebrow>Causerie corpus</p><h1>{title}</h1></header>",
        _figures(facts),
        _section("Funnel", _funnel(facts), "Documents left after each stage, and the rules that dropped the others."),
        _section("Rules", _rules(facts), RULES_NOTE),
        _section("Sources", _sources(facts), _sources_note(facts)),
        _section("Sites", _named(facts.hosts, SITES), "Kept and seen documents of the largest hosts.", facts.hosts),
        _section("Languages", _named(facts.languages, 12), "Main language of every text that was read; green: kept."),
        _section("Lengths", _lengths(facts), "Bytes of text in each kept document."),
        _section("Duplicates", _clusters(facts), _clusters_note(facts)),
        _section("Shared with evaluation sets", _hits(facts), "First shared run of words of each.", facts.hits),
        _section("Kept: examples", "".join(_sample(row) for row in facts.kept_examples.rows())),
        _section("Dropped: examples", _dropped(facts)),
        "<footer>Every document, with each measure and all rules it failed: <code>ledger.parquet</code>. "
        "Thresholds are moved with <code>causerie data refilter</code>.</footer>",
    )
    return PAGE.format(style=STYLE, title=html.escape(title), body="\n".join(filter(None, parts)))


RULES_NOTE: Final = (
    "Each document counts once, under the first rule it failed. “Alone” (the strong part of the bar): of the "
    "documents that were read, those that failed no other rule and would be kept if this one were off."
)
MOVABLE: Final = 2
"""Stage from which on documents were read: their rules can be moved."""


def _section(title: str, body: str, note: str = "", needed: object = True) -> str:
    if not needed:
        return ""
    under = f"<p class=note>{html.escape(note)}</p>" if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{under}{body}</section>"


def _figures(facts: Facts) -> str:
    tokens = sum(facts.tokens.values())
    about = _count(tokens) if tokens else f"≈ {_count(facts.bytes_kept / BYTES_PER_TOKEN)}"
    repeated = facts.dropped["exact_duplicate"] + facts.dropped["near_duplicate"]
    return tiles(
        (
            (f"{facts.bytes_kept / 1e6:.1f} MB", f"of text, from {facts.bytes_in / 1e6:.1f} MB of pages"),
            (about, "tokens" if tokens else "tokens, at 4 bytes each"),
            (f"{facts.kept / max(facts.seen, 1):.0%}", "of the documents kept"),
            (f"{repeated:,}", f"duplicates dropped, of {facts.clusters:,} documents"),
            (f"{facts.cut_lines:,}", "lines cut that their site repeats"),
            (f"{facts.masked.total():,}", "addresses and numbers masked"),
        )
    )


def _funnel(facts: Facts) -> str:
    by_stage: list[Counter[str]] = [Counter() for _ in STAGES]
    for rule, count in facts.dropped.items():
        by_stage[stage_of(rule)][rule] += count
    left = facts.seen
    steps: list[tuple[str, int, list[tuple[str, int]]]] = [("documents seen", left, [])]
    for (words, _), dropped in zip(STAGES, by_stage, strict=True):
        left -= dropped.total()
        steps.append((words, left, _ordered(dropped)))
    return funnel(steps)


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _rules(facts: Facts) -> str:
    rows = [
        (rule, said(rule), count, facts.alone[rule] if stage_of(rule) >= MOVABLE else 0)
        for rule, count in _ordered(facts.dropped)
    ]
    return rules_table(rows) or "<p>Nothing was dropped.</p>"


def _named(groups: dict[str, Counter[str]], count: int) -> str:
    ordered = sorted(groups.items(), key=lambda item: (-item[1]["seen"], item[0]))
    rows = [(name, c["kept"], c["seen"], _size(c["bytes"])) for name, c in ordered[:count]]
    more = f"<p class=note>and {len(ordered) - count:,} more</p>" if len(ordered) > count else ""
    return stacked(rows) + more


def _sources(facts: Facts) -> str:
    ordered = sorted(facts.sources.items(), key=lambda item: (-item[1]["bytes"], -item[1]["seen"], item[0]))
    rows = []
    for name, counts in ordered[:SOURCES]:
        tokens = facts.tokens[name] or counts["bytes"] / BYTES_PER_TOKEN
        rows.append((name, counts["kept"], counts["seen"], f"{_count(tokens)} tokens" if tokens else ""))
    more = f"<p class=note>and {len(ordered) - SOURCES:,} more</p>" if len(ordered) > SOURCES else ""
    return stacked(rows) + more


def _sources_note(facts: Facts) -> str:
    how = "counted in the shards" if facts.tokens else "estimated at 4 bytes each"
    return f"Kept and seen documents of each file, and tokens of the kept ones, {how}."


def _size(size: float) -> str:
    if not size:
        return ""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _count(number: float) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k" if number >= 1e3 else f"{number:.0f}"


def _lengths(facts: Facts) -> str:
    names = [*(f"< {edge:,}" for edge in EDGES[1:-1]), "more"]
    return histogram(list(zip(names, facts.lengths, strict=True)))


def _clusters_note(facts: Facts) -> str:
    if not facts.clusters:
        return ""
    sizes = ", ".join(f"{count:,} of {size}" for size, count in facts.cluster_sizes.most_common())
    return f"{facts.clusters:,} documents have copies ({sizes} documents each). The largest clusters, and near copies:"


def _clusters(facts: Facts) -> str:
    blocks = []
    for cluster in facts.shown_clusters:
        first = facts.excerpts.get(cluster["id"]) or {}
        copies = cluster["copies"]
        name = html.escape(first.get("title") or cluster["url"] or cluster["id"])
        listed = "".join(
            f"<li><span class=like>{copy['similarity']:.0%}</span> {html.escape(copy['url'] or copy['id'])}</li>"
            for copy in copies
        )
        hidden = cluster["size"] - 1 - len(copies)
        listed += f"<li class=note>and {hidden:,} more</li>" if hidden > 0 else ""
        other = (facts.excerpts.get(copies[0]["id"]) or {}) if copies else {}
        pair = f"<div class=pair>{_quote(first, 'stays')}{_quote(other, 'dropped')}</div>"
        count = f"<span>{cluster['size']:,} documents</span>"
        blocks.append(f"<details><summary>{name} {count}</summary><ul class=copies>{listed}</ul>{pair}</details>")
    return "".join(blocks) or "<p>No duplicates were found.</p>"


def _quote(row: Row, verdict: str) -> str:
    if not row.get("excerpt"):
        return ""
    return f"<figure><figcaption>{verdict}</figcaption><blockquote>{html.escape(row['excerpt'])}…</blockquote></figure>"


def _hits(facts: Facts) -> str:
    lines = (
        f"<tr><td class=name>{html.escape(hit['url'] or hit['id'])}</td><td>“{html.escape(hit['words'])}”</td>"
        f"<td class=count>{html.escape(', '.join(hit['files']))}</td></tr>"
        for hit in facts.hits
    )
    return f"<table>{''.join(lines)}</table>"


def _dropped(facts: Facts) -> str:
    blocks = []
    for rule, count in _ordered(facts.dropped):
        shown = "".join(_sample(row) for row in facts.dropped_examples[rule].rows())
        title = f"<code>{html.escape(rule)}</code> {html.escape(said(rule))} <span>{count:,}</span>"
        blocks.append(f"<details><summary>{title}</summary>{shown}</details>")
    return "".join(blocks) or "<p>Nothing was dropped.</p>"


def _sample(row: dict[str, Any]) -> str:
    name = html.escape(row["title"] or row["url"] or row["id"])
    facts = [row["lang"], f"{row['bytes']:,} bytes" if row["bytes"] else "", row["note"]]
    if row["duplicate_of"]:
        facts.append(f"{row['similarity']:.0%} like {row['duplicate_of']}")
    if len(row["failed"] or ()) > 1:
        facts.append("also " + ", ".join(row["failed"][1:4]))
    words = html.escape(" · ".join(filter(None, facts)))
    link = f"<p class=url>{html.escape(row['url'])}</p>" if row["url"] else ""
    text = f"<blockquote>{html.escape(row['excerpt'])}…</blockquote>" if row["excerpt"] else ""
    return f"<article><h4>{name}</h4><p class=facts>{words}</p>{link}{text}</article>"
