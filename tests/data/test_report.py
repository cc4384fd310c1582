"""The report: self-contained, everything escaped, equal bytes for an equal ledger."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from causerie.data.config import DataBuildConfig
from causerie.data.curate import Judged, curate, unread
from causerie.data.ledger import LedgerWriter
from causerie.data.raw import RawDocument
from causerie.data.report import RULES_SAID, write_report


class Tags(HTMLParser):
    """Collects tags, attributes and text; fails on a tag left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def corpus(folder: Path, rows: list[Judged]) -> Path:
    folder.mkdir()
    with LedgerWriter(folder / "ledger.parquet") as ledger:
        for row in rows:
            ledger.add(row)
    return folder


def test_report_is_one_file_and_escapes_what_pages_say(tmp_path: Path, make_prose) -> None:
    evil = '<script>alert(1)</script> & "quotes" \''
    text = RawDocument("s", 0, body=(make_prose(1) + evil).encode(), title=evil, url=f"https://x.example/{evil}")
    rows = [curate(text, DataBuildConfig(), {}), unread(RawDocument("s", 1, problem="broken_record", note=evil))]
    made = write_report(corpus(tmp_path / "c", rows))
    page = made.read_text()
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert "script" not in {tag for tag, _ in tags.seen}
    assert not any(name in ("src", "href") for _, attributes in tags.seen for name in attributes)
    assert "1 of 2 documents kept" in page
    assert "broken_record" in page
    assert write_report(tmp_path / "c", tmp_path / "again.html").read_bytes() == made.read_bytes()


def test_report_of_nothing(tmp_path: Path) -> None:
    assert "0 of 0" in write_report(corpus(tmp_path / "c", [])).read_text()


def test_every_rule_is_explained() -> None:
    from causerie.data.filters import quality_rules

    names = {rule.name for rule in quality_rules(DataBuildConfig())}
    assert not {name for name in names if "gram" not in name} - set(RULES_SAID)
