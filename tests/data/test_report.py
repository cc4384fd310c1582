"""The report: self-contained, everything escaped, equal bytes for an equal ledger."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from causerie.data.build import build
from causerie.data.config import DataBuildConfig
from causerie.data.curate import Judged, curate, unread
from causerie.data.ledger import LedgerWriter
from causerie.data.raw import RawDocument
from causerie.data.report import write_report
from causerie.data.report_facts import Examples, gather
from causerie.data.rules_said import RULES_SAID, stage_of
from causerie.data.shard_files import IndexWriter


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


def test_sections_follow_the_build(small_warc: Path, tmp_path: Path) -> None:
    made = build(DataBuildConfig(sources=(str(small_warc),), workers=1), tmp_path)
    page = (made.path / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    facts = gather(made.path)
    assert facts.seen == 14
    assert facts.kept == 9
    assert facts.dropped.total() == 5
    assert sum(facts.lengths) == 9
    assert (facts.clusters, facts.hosts["copy.example"]["kept"]) == (1, 0)
    assert facts.languages["fr"] == {"seen": 4, "kept": 4, "bytes": facts.languages["fr"]["bytes"]}
    for said in ("https://copy.example/0", "are no duplicates", "−1", "not_html", "b.example", "prefers-color-scheme"):
        assert said in page, said


def test_tokens_are_counted_when_there_are_shards(tmp_path: Path) -> None:
    rows = [unread(RawDocument("s", 0, problem="empty"))]
    folder = corpus(tmp_path / "c", rows)
    (tmp_path / "shards").mkdir()
    with IndexWriter(tmp_path / "shards") as index:
        index.add({"id": "s#0", "source": "s"}, "val.bin", 0, 1_234_567, 9)
    write_report(folder, tmp_path / "r.html", tmp_path / "shards")
    page = (tmp_path / "r.html").read_text()
    assert "1.23 M" in page
    assert "counted in the shards" in page


def test_examples_do_not_depend_on_the_order() -> None:
    rows = [{"id": str(number)} for number in range(50)]
    forward, backward = Examples(4), Examples(4)
    for row in rows:
        forward.add(row)
    for row in reversed(rows):
        backward.add(row)
    assert forward.rows() == backward.rows()
    assert len(forward.rows()) == 4


def test_every_rule_has_its_stage() -> None:
    stages = {rule: stage_of(rule) for rule in ("http_status", "empty", "language", "too_short", "contaminated")}
    assert list(stages.values()) == [0, 1, 2, 3, 4]
    assert stage_of("near_duplicate") == 5
