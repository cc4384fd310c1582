"""`causerie data ...`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from causerie.cli.flags import JSON, command_for, show, show_dash
from causerie.core import CauserieError
from causerie.data import (
    DataBuildConfig,
    DownloadConfig,
    PackConfig,
    QualityTrainConfig,
    RefilterConfig,
    RemoveConfig,
    TraceConfig,
    Traced,
    build,
    describe_download,
    download,
    download_failures,
    extract_html,
    pack,
    refilter,
    remove,
    trace,
    train_quality,
    write_report,
)


def _traced(found: Traced) -> str:
    lines = []
    for row in found.ledger:
        verdict = "kept" if row["kept"] else f"dropped: {row['rule']}"
        like = f", like {row['duplicate_of']}" if row["duplicate_of"] else ""
        lines.append(f"{row['corpus']}: {row['id']} {verdict}{like}")
    for place in found.shards:
        where = f"{place['shards']}/{place['file']}"
        lines.append(f"{where}: tokens {place['start']:,} to {place['start'] + place['tokens']:,} ({place['id']})")
    return "\n".join(lines or ["no shard holds it"])


app = App(name="data", help="Web pages in, curated token shards out.", result_action="return_value")
app.command(
    command_for(
        DataBuildConfig, build, "Curate pages into a corpus; what is dropped is counted.", positional=("sources",)
    ),
    name="build",
)
app.command(command_for(PackConfig, pack, "Pack a corpus into token shards.", positional=("corpus",)), name="pack")
app.command(
    command_for(
        RefilterConfig,
        refilter,
        "Move thresholds: another corpus from the same pages without reading them again.",
        positional=("corpus", "settings"),
    ),
    name="refilter",
)
app.command(
    command_for(
        TraceConfig,
        trace,
        "Find an address: what became of it, and which shards hold it where.",
        positional=("url",),
        say=_traced,
    ),
    name="trace",
)
app.command(
    command_for(
        RemoveConfig, remove, "Write shards without some addresses, and record it.", positional=("shards", "urls")
    ),
    name="remove",
)

app.command(
    command_for(
        DownloadConfig,
        download,
        "Fetch the files of a list, politely; what has arrived is kept.",
        positional=("paths", "out"),
        say=describe_download,
        finding=download_failures,
    ),
    name="download",
)
quality = App(name="quality", help="A learned judge of text quality.", result_action="return_value")
quality.command(
    command_for(QualityTrainConfig, train_quality, "Learn to tell good documents from bad ones."), name="train"
)
app.command(quality)


@app.command
def extract(
    file: Annotated[str, Parameter(help="An HTML file, or - for standard input.")],
    *,
    url: Annotated[str | None, Parameter(help="The page's address, for relative links.")] = None,
    json: JSON = False,
) -> None:
    """Print the main text of one HTML page."""
    try:
        html = sys.stdin.buffer.read() if show_dash(file) == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CauserieError("CAU-7002", f"cannot read: {error.strerror}", where=file, fix="check the path") from error
    found = extract_html(html, url)
    show(found, json, lambda page: page.text)


@app.command
def report(
    corpus: Annotated[Path, Parameter(help="A corpus folder.")],
    *,
    out: Annotated[Path | None, Parameter(help="File to write; report.html in the present folder by default.")] = None,
    shards: Annotated[Path | None, Parameter(help="Shards packed from it: tokens are counted, not estimated.")] = None,
    json: JSON = False,
) -> None:
    """Write a corpus's HTML report anew."""
    show({"path": str(write_report(corpus, out or Path("report.html"), shards))}, json)
