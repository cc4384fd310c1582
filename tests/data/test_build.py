"""Builds: what is counted, that nothing depends on timing or workers, and that a killed build goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from causerie.core import CauserieError, open_artifact
from causerie.data import DataBuildConfig, RawDocument, build, corpus_documents, read_ledger
from causerie.data.pool import Worker
from causerie.data.quarantine import Quarantine

FILES = (
    *(
        "documents.jsonl.zst",
        "dropped.jsonl.zst",
        "clusters.jsonl.zst",
        "signatures.bin",
        "digests.bin",
        "boilerplate.npy",
    ),
    *("contamination.jsonl", "ledger.parquet", "report.html"),
)


def content(corpus: Path) -> dict[str, bytes]:
    return {name: (corpus / name).read_bytes() for name in FILES}


def test_every_document_is_counted_once(small_warc: Path, tmp_path: Path) -> None:
    made = build(DataBuildConfig(sources=(str(small_warc),)), tmp_path / "w")
    metrics = made.manifest.metrics
    assert metrics["documents_in"] == 14
    assert metrics["documents_kept"] == 9
    reasons = {"exact_duplicate": 1, "language": 1, "not_html": 1, "http_status": 1, "broken_record": 1}
    assert metrics["dropped"] == reasons
    assert metrics["by_language"]["fr"]["documents"] == 4
    documents = list(corpus_documents(made.path))
    assert len({document["id"] for document in documents}) == 9
    assert documents[0]["license"] == "CC0-1.0"
    assert sum(len(document["text"].encode()) for document in documents) == metrics["bytes_kept"]
    ledger = read_ledger(made.path).to_pylist()
    assert [row["kept"] for row in ledger].count(True) == 9
    copy = next(row for row in ledger if row["rule"] == "exact_duplicate")
    assert copy["duplicate_of"] == "small.warc.gz#0"
    assert copy["similarity"] == 1.0
    assert not (tmp_path / "w" / "runs").joinpath(next((tmp_path / "w" / "runs").iterdir()).name, "batches").exists()


def test_same_bytes_whatever_the_workers_and_the_place(small_warc: Path, tmp_path: Path) -> None:
    one = build(DataBuildConfig(sources=(str(small_warc),), workers=1), tmp_path / "one")
    out = tmp_path / "elsewhere" / "corpus"
    two = build(DataBuildConfig(sources=(str(small_warc),), workers=2, batch_documents=3, out=out), tmp_path / "two")
    assert two.path == out
    assert one.key == two.key
    assert content(one.path) == content(two.path)
    again = build(DataBuildConfig(sources=(str(small_warc),), out=out), tmp_path / "two")
    assert again.manifest.created == two.manifest.created


def test_page_that_never_ends_is_counted(tmp_path: Path, make_prose) -> None:
    """The long text needs seconds; its process is ended and the next document read by another."""
    for number in (1, 3):
        (tmp_path / f"{number}.txt").write_text(make_prose(number))
    (tmp_path / "2.txt").write_text(make_prose(2) * 10_000)
    config = DataBuildConfig(sources=(str(tmp_path / "[123].*"),), page_seconds=0.3, workers=1)
    metrics = build(config, tmp_path / "w").manifest.metrics
    assert metrics["documents_kept"] == 2
    assert metrics["dropped"] == {"too_slow": 1}
    (folder,) = (tmp_path / "w" / "runs").glob("*/quarantine")
    (entry,) = Quarantine(folder).listed()
    assert (entry["id"], entry["rule"]) == ("2.txt#0", "too_slow")
    assert (folder / str(entry["file"])).read_bytes() == (tmp_path / "2.txt").read_bytes()


def test_quarantine_keeps_a_document_once_and_no_more_than_fits(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q", most=100)
    for source, size in (("a/../x.warc.gz", 60), ("a/../x.warc.gz", 60), ("y", 60), ("z", 40)):
        quarantine.add(RawDocument(source, 7, kind="html", body=b"x" * size), "crashed", "exit status -11")
    listed = Quarantine(tmp_path / "q").listed()
    assert [(entry["id"], entry["bytes"], bool(entry["file"])) for entry in listed] == [
        ("a/../x.warc.gz#7", 60, True),
        ("y#7", 60, False),
        ("z#7", 40, True),
    ]
    assert sorted(path.stat().st_size for path in tmp_path.glob("q/*.html")) == [40, 60]
    assert all(path.parent == tmp_path / "q" for path in tmp_path.rglob("*.html"))


def test_a_source_that_became_an_evaluation_file_is_pointed_out(tmp_path: Path, make_prose, capsys) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": make_prose(3)}) + "\n")
    (tmp_path / "page.txt").write_text(make_prose(1))
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": make_prose(4)}) + "\n")
    config = DataBuildConfig(
        sources=(str(tmp_path / "page.txt"), str(tmp_path / "c.jsonl")),
        decontaminate=(tmp_path / "a.jsonl", tmp_path / "b.jsonl"),
        workers=1,
    )
    build(config, tmp_path / "w")
    told = capsys.readouterr().err
    assert "b.jsonl is an evaluation file here, not a source" in told.replace("\n", " ")
    assert "page.txt is read as a source" not in told


def test_worker_that_dies_costs_one_document(make_prose) -> None:
    worker = Worker(DataBuildConfig(), None)
    raw = RawDocument("s", 0, body=make_prose(1).encode())
    try:
        assert worker.judge(raw).rule == ""
        worker._running().kill()
        assert worker.judge(raw).rule == "crashed"
        assert worker.judge(raw).text == make_prose(1)
    finally:
        worker.close()


def test_contaminated_documents_are_dropped(tmp_path: Path, make_prose) -> None:
    (tmp_path / "a.txt").write_text(make_prose(1))
    (tmp_path / "b.txt").write_text(make_prose(2))
    question = " ".join(make_prose(2).split()[5:30])
    evaluation = tmp_path / "eval.jsonl"
    evaluation.write_text(json.dumps({"question": question, "answers": ["yes", {"text": "no"}]}) + "\n")
    sources = (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    made = build(DataBuildConfig(sources=sources, decontaminate=(evaluation,)), tmp_path / "w")
    assert made.manifest.metrics["dropped"] == {"contaminated": 1}
    rows = {row["id"]: row["eval_overlap"] for row in read_ledger(made.path).to_pylist()}
    assert rows["a.txt#0"] == 0
    assert rows["b.txt#0"] == 13


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"sources": ()}, "CAU-2003", "no source"),
        ({"sources": ("/nowhere/*.warc",)}, "CAU-2001", "/nowhere"),
        ({"dedup_threshold": 1.5}, "CAU-2003", "1.5"),
        ({"max_top_ngrams": (0.1,)}, "CAU-2003", "3 are needed"),
        ({"page_seconds": 0}, "CAU-2003", "out of range"),
        ({"decontaminate": (Path("/nowhere/eval.jsonl"),)}, "CAU-2009", "no such file"),
        ({"languages": ("fr",), "min_words": 10_000}, "CAU-2005", "none of 1"),
    ],
)
def test_bad_input_says_what_and_where(tmp_path: Path, make_prose, change: dict, code: str, said: str) -> None:
    (tmp_path / "a.txt").write_text(make_prose(1))
    with pytest.raises(CauserieError) as caught:
        build(DataBuildConfig(**{"sources": (str(tmp_path / "a.txt"),), **change}), tmp_path / "w")
    assert caught.value.code == code
    assert said in str(caught.value)
    assert caught.value.fix


def _child(source: Path, workspace: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    build(DataBuildConfig(sources=(str(source),), batch_documents=2, workers=1), workspace)


def run_build(source: Path, workspace: Path, **environment: str) -> int | None:
    """Build in a process of its own; its exit status, negative for a signal."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(source, workspace, environment))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_killed_at_any_point_it_ends_with_the_same_bytes(tmp_path: Path, make_prose) -> None:
    """Slow: two builds, each with a worker process, for every crash point."""
    source = tmp_path / "in.jsonl"
    texts = [make_prose(0), make_prose(1, "fr"), make_prose(2), make_prose(0), "short"]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    log = tmp_path / "points"
    assert run_build(source, tmp_path / "whole", CAUSERIE_CRASH_LOG=str(log)) == 0
    whole = content(next((tmp_path / "whole" / "corpus").iterdir()))
    points = list(dict.fromkeys(log.read_text().split()))
    assert {"data.batch_written", "data.curated", "data.merged", "data.reported", "artifact.before_rename"} <= {*points}
    for point in [*points, "data.batch_written:2"]:
        workspace = tmp_path / point.replace(":", "-")
        assert run_build(source, workspace, CAUSERIE_CRASH_AT=point) == -signal.SIGKILL, point
        assert run_build(source, workspace) == 0, point
        (made,) = (path for path in (workspace / "corpus").iterdir() if not path.name.startswith("."))
        open_artifact(made, verify="digest")
        assert content(made) == whole, point


def test_second_start_curates_only_what_is_missing(tmp_path: Path, make_prose) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": make_prose(number)}) + "\n" for number in range(6)))
    assert run_build(source, tmp_path / "w", CAUSERIE_CRASH_AT="data.batch_written:2") == -signal.SIGKILL
    assert run_build(source, tmp_path / "w") == 0
    (run,) = (tmp_path / "w" / "runs").iterdir()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    numbers = [event["name"] for event in events if event["event"] == "batch"]
    assert numbers == [
        "000000-000000",
        "000000-000002",
    ]  # the second batch was written, and the process killed before it was logged
