"""How the report looks: one style sheet for light and dark, and the page around the sections."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{--bg:#fbfaf7;--fg:#21252b;--soft:#6a7078;--line:#e4e0d8;--card:#fff;--bar:#c3cddd;--deep:#7f93b5;--kept:#2f6f5e;
--accent:#b4552d;--chip:#f3efe7}
@media(prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e6e4df;--soft:#9aa1ab;--line:#2c3138;--card:#1c2026;
--bar:#36435a;--deep:#6f86ad;--kept:#5fb39b;--accent:#e08a5f;--chip:#262b33}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
.eyebrow{margin:0;color:var(--accent);font-weight:600;letter-spacing:.04em}
h1{font-size:2rem;line-height:1.2;margin:.2rem 0 1.5rem}h2{font-size:1.2rem;margin:0 0 .25rem}
h4{margin:0;font-size:1rem;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.25rem 1.5rem;margin:1rem 0}
.note,.facts,.url,footer{color:var(--soft);font-size:.875rem;margin:.1rem 0 .75rem}.url{overflow-wrap:anywhere;margin:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.9rem 1.1rem}
.tiles dt{white-space:nowrap;font-size:1.5rem;font-weight:650;line-height:1.2}
.tiles dd{margin:0;color:var(--soft);font-size:.8125rem;line-height:1.35}
.funnel{list-style:none;margin:.5rem 0 0;padding:0}.funnel>li{margin:0 0 .7rem}
.step{display:flex;gap:.75rem;align-items:baseline;font-size:.9375rem}.step b{margin-left:auto}
.step b,.lost{font-variant-numeric:tabular-nums}.lost{color:var(--accent);min-width:4.5rem;text-align:right}
.funnel>li:first-child b{margin-right:5.25rem}
.wide{height:1rem;margin:.15rem 0 .25rem}.wide i{display:block;height:100%;background:var(--kept);border-radius:4px}
.chips{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem .4rem;margin:0;padding:0;font-size:.8125rem;
color:var(--soft)}
.chips li{background:var(--chip);border-radius:999px;padding:.05rem .6rem}
table{width:100%;border-collapse:collapse;font-size:.9rem}td,th{padding:.22rem .5rem .22rem 0;vertical-align:middle}
th{text-align:left;font-weight:400;color:var(--soft);font-size:.8125rem}
td.name{white-space:nowrap;width:1%;max-width:22rem;overflow:hidden;text-overflow:ellipsis}
td.said{color:var(--soft);width:1%;white-space:nowrap}
.count{text-align:right!important;width:1%;white-space:nowrap;font-variant-numeric:tabular-nums;padding-right:0;
padding-left:.9rem}td.extra{color:var(--soft)}
.bar{display:flex;height:.8rem;background:transparent;border-radius:4px;overflow:hidden;min-width:5rem}
.bar i{display:block;background:var(--bar)}.bar i.kept{background:var(--kept)}.bar i.alone{background:var(--deep)}
svg{width:100%;height:auto;display:block}svg rect{fill:var(--kept)}svg text{fill:var(--soft);font:12px system-ui}
svg text.value{fill:var(--fg)}article{border-top:1px solid var(--line);padding:.75rem 0}
article:first-of-type{border-top:0}blockquote{margin:.4rem 0 0;padding-left:.9rem;border-left:3px solid var(--line);
white-space:pre-wrap;overflow-wrap:anywhere;font-size:.9rem;max-height:11rem;overflow:auto}
details{border-top:1px solid var(--line);padding:.4rem 0}details:first-of-type{border-top:0}
summary{cursor:pointer;padding:.2rem 0;overflow-wrap:anywhere}summary span{color:var(--soft);margin-left:.4rem;
font-size:.875rem;white-space:nowrap}
.copies{list-style:none;margin:.3rem 0;padding:0;font-size:.875rem;overflow-wrap:anywhere}
.like{display:inline-block;min-width:3rem;color:var(--accent);font-variant-numeric:tabular-nums}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}.pair figure{margin:.3rem 0}
figcaption{color:var(--soft);font-size:.8125rem}
code{font:.9em ui-monospace,monospace}
@media(max-width:44rem){.said,td.extra{display:none}h1{font-size:1.5rem}section{padding:1rem}
.pair{grid-template-columns:1fr}td.name{max-width:9rem}.bar{min-width:2rem}}
"""

PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body></html>
"""
