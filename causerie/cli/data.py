"""`causerie data ...`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from causerie.cli.flags import JSON, command_for, show, show_dash
from causerie.core import CauserieError
from causerie.data import DataBuildConfig, PackConfig, build, extract_html, pack, write_report

app = App(name="data", help="Web pages in, curated token shards out.", result_action="return_value")
app.command(
    command_for(
        DataBuildConfig, build, "Curate pages into a corpus; what is dropped is counted.", positional=("sources",)
    ),
    name="build",
)
app.command(command_for(PackConfig, pack, "Pack a corpus into token shards.", positional=("corpus",)), name="pack")


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
    json: JSON = False,
) -> None:
    """Write a corpus's HTML report anew."""
    show({"path": str(write_report(corpus, out or Path("report.html")))}, json)
