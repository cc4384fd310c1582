"""Plain charts for the report: HTML tables with bars, and one inline SVG histogram. No script, no fonts."""

from __future__ import annotations

import html
from collections.abc import Sequence


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """A row of large figures with a caption each: (figure, caption)."""
    cells = (f"<div><dt>{html.escape(figure)}</dt><dd>{html.escape(said)}</dd></div>" for figure, said in figures)
    return f"<dl class=tiles>{''.join(cells)}</dl>"


def funnel(steps: Sequence[tuple[str, int, Sequence[tuple[str, int]]]]) -> str:
    """A narrowing bar for each (what the documents are, how many are left, [(rule, how many it dropped)])."""
    whole = max((left for _, left, _ in steps), default=1) or 1
    lines = []
    for number, (said, left, dropped) in enumerate(steps):
        lost = sum(count for _, count in dropped)
        share = 100 * left / whole
        chips = "".join(f"<li><code>{html.escape(rule)}</code> {count:,}</li>" for rule, count in dropped[:5])
        more = sum(count for _, count in dropped[5:])
        chips += f"<li>{len(dropped) - 5} other rules {more:,}</li>" if more else ""
        minus = f"<span class=lost>−{lost:,}</span>" if number else ""
        lines.append(
            f"<li><div class=step><span>{html.escape(said)}</span><b>{left:,}</b>{minus}</div>"
            f"<div class=wide><i style='width:{max(share, 0.2):.2f}%'></i></div>"
            f"{f'<ul class=chips>{chips}</ul>' if chips else ''}</li>"
        )
    return f"<ol class=funnel>{''.join(lines)}</ol>"


def rules_table(rows: Sequence[tuple[str, str, int, int]]) -> str:
    """A bar of two parts for each (rule, what it means, dropped, dropped by it alone); "" for none."""
    if not rows:
        return ""
    longest = max(count for _, _, count, _ in rows)
    lines = (
        f"<tr><td class=name><code>{html.escape(name)}</code></td><td class=said>{html.escape(said)}</td>"
        f"<td><div class=bar><i class=alone style='width:{100 * alone / longest:.1f}%'></i>"
        f"<i style='width:{max(100 * (count - alone) / longest, 0.2):.1f}%'></i></div></td>"
        f"<td class=count>{count:,}</td><td class=count>{alone or ''}</td></tr>"
        for name, said, count, alone in rows
    )
    head = "<tr><th>rule</th><th class=said></th><th></th><th class=count>dropped</th><th class=count>alone</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def stacked(rows: Sequence[tuple[str, int, int, str]]) -> str:
    """A bar of two parts for each (name, kept, seen, what is said beside the counts)."""
    longest = max((seen for _, _, seen, _ in rows), default=1)
    lines = (
        f"<tr><td class=name title='{html.escape(name, quote=True)}'>{html.escape(name)}</td>"
        f"<td><div class=bar><i class=kept style='width:{100 * kept / longest:.1f}%'></i>"
        f"<i style='width:{100 * (seen - kept) / longest:.1f}%'></i></div></td>"
        f"<td class=count>{kept:,} of {seen:,}</td><td class='count extra'>{html.escape(said)}</td></tr>"
        for name, kept, seen, said in rows
    )
    return f"<table>{''.join(lines)}</table>"


def histogram(columns: Sequence[tuple[str, int]]) -> str:
    """A column for each (label, count)."""
    width, height, step = 64 * len(columns), 150, 64
    top = max((count for _, count in columns), default=0) or 1
    parts = []
    for number, (label, count) in enumerate(columns):
        tall = 110 * count / top
        x, middle = number * step + 6, number * step + step / 2
        parts.append(f"<rect x='{x}' y='{125 - tall:.1f}' width='{step - 12}' height='{tall:.1f}' rx='3'/>")
        parts.append(f"<text x='{middle}' y='144' text-anchor='middle'>{html.escape(label)}</text>")
        if count:
            parts.append(f"<text class=value x='{middle}' y='{119 - tall:.1f}' text-anchor='middle'>{count:,}</text>")
    label = html.escape(", ".join(f"{name}: {count}" for name, count in columns), quote=True)
    return f"<svg viewBox='0 0 {width} {height}' role=img aria-label='{label}'>{''.join(parts)}</svg>"
