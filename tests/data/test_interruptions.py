"""Killed, stopped, started twice, given strange names: every command ends with the same bytes, or says why not."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from causerie.core import Artifact, CauserieError, Stopped, list_artifacts, open_artifact, open_run, read_run
from causerie.data import (
    DataBuildConfig,
    PackConfig,
    QualityTrainConfig,
    RefilterConfig,
    RemoveConfig,
    build,
    corpus_documents,
    pack,
    read_ledger,
    refilter,
    remove,
    train_quality,
)
from causerie.data import build as build_function
from causerie.data.sources import find_sources
from tests.data.conftest import prose
from tests.data.test_trace import Bytes

BUILD = sys.modules["causerie.data.build"]


def jsonl(path: Path, count: int, first: int = 0) -> str:
    rows = [{"text": prose(first + n), "url": f"https://a.example/{n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its shards, and two files of documents; tests write elsewhere."""
    here = tmp_path_factory.mktemp("made")
    corpus = build(DataBuildConfig((jsonl(here / "in.jsonl", 24),), out=here / "corpus", workers=1), here)
    (here / "t").mkdir()
    (here / "t" / "tokenizer.json").write_text("{}")
    pack(PackConfig(corpus.path, here / "t", out=here / "shards", val_fraction=0.3), here, Bytes())
    jsonl(here / "good.jsonl", 30)
    rows = [{"text": f"Home > Shop > Item {n}\nAdd to cart\nSize {n}\n" * 9} for n in range(30)]
    (here / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return here


Command = Callable[[Path, Path], Artifact]
COMMANDS: dict[str, Command] = {
    "pack": lambda at, to: pack(PackConfig(at / "corpus", at / "t", val_fraction=0.3, shard_tokens=900), to, Bytes()),
    "refilter": lambda at, to: refilter(RefilterConfig(at / "corpus", ("min_words=80",)), to),
    "remove": lambda at, to: remove(RemoveConfig(at / "shards", ("https://a.example/3",)), to),
    "quality": lambda at, to: train_quality(
        QualityTrainConfig((str(at / "good.jsonl"),), (str(at / "bad.jsonl"),), bits=12), to
    ),
}


def _child(command: str, place: Path, workspace: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    COMMANDS[command](place, workspace)


def run(command: str, place: Path, workspace: Path, **environment: str) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=_child, args=(command, place, workspace, environment))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_each_of_its_crash_points_a_command_ends_with_the_same_bytes(
    command: str, place: Path, tmp_path: Path
) -> None:
    log = tmp_path / "points"
    assert run(command, place, tmp_path / "whole", CAUSERIE_CRASH_LOG=str(log)) == 0
    kind = {"pack": "shards", "refilter": "corpus", "remove": "shards", "quality": "quality"}[command]
    (whole,) = list_artifacts(tmp_path / "whole", kind)
    points = list(dict.fromkeys(log.read_text().split()))
    assert {"artifact.before_manifest", "artifact.before_rename", "artifact.after_rename"} <= {*points}
    for point in points:
        workspace = tmp_path / point
        assert run(command, place, workspace, CAUSERIE_CRASH_AT=point) == -signal.SIGKILL, point
        for made in list_artifacts(workspace, kind):
            open_artifact(made.path, verify="digest")
        assert run(command, place, workspace) == 0, point
        (made,) = list_artifacts(workspace, kind)
        assert (made.key, made.manifest.files) == (whole.key, whole.manifest.files), point
        left = [path.name for path in made.path.parent.iterdir()]
        assert left == [made.path.name], point


CLI = [sys.executable, "-m", "causerie"]


@contextlib.contextmanager
def started(*arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, as a shell starts it."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    process = subprocess.Popen(
        [*CLI, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(pattern: str, folder: Path) -> None:
    for _ in range(6_000):
        if next(folder.glob(pattern), None) is not None:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {pattern} in {folder}")


def test_ctrl_c_saves_what_is_done_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The signal goes to the whole group, as a terminal sends it; workers must not die of it before their parent."""
    source = jsonl(tmp_path / "in.jsonl", 160)
    command = ("data", "build", source, "--workers", "1", "--batch-documents", "4", "--json")
    with started(*command, "--workspace", str(tmp_path / "w")) as process:
        wait_for("w/runs/*/batches/*.zst", tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 75, err
    assert out == ""
    assert "run the same command again" in err.replace("\n", " ")
    (folder,) = (tmp_path / "w" / "runs").iterdir()
    assert read_run(folder)["status"] == "stopped"
    done = len(list(folder.glob("batches/*.zst")))
    assert 0 < done < 40
    made = build(DataBuildConfig((source,), workers=1, batch_documents=4), tmp_path / "w")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "batch" for event in events) == 40  # none was curated twice
    assert made.manifest.metrics["documents_in"] == 160


def test_a_stop_while_documents_are_compared_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataBuildConfig((jsonl(tmp_path / "in.jsonl", 6),), workers=1)
    asked = False

    @contextlib.contextmanager
    def stopping() -> Iterator[Callable[[], bool]]:
        yield lambda: asked

    def ask(point: str) -> None:
        nonlocal asked
        asked = asked or point == "data.curated"

    with monkeypatch.context() as patch:
        patch.setattr(BUILD, "graceful_stop", stopping)
        patch.setattr(BUILD, "crashpoint", ask)
        with pytest.raises(Stopped, match="compared"):
            build_function(config, tmp_path / "w")
    assert list_artifacts(tmp_path / "w", "corpus") == []
    made = build_function(config, tmp_path / "w")
    assert made.manifest.files == build_function(config, tmp_path / "other").manifest.files


def test_two_starts_of_one_build_are_one_build(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", 60)
    command = ("data", "build", source, "--workers", "1", "--batch-documents", "4", "--workspace", str(tmp_path / "w"))
    with started(*command) as first:
        wait_for("w/runs/*/batches/*.zst", tmp_path)
        first.send_signal(signal.SIGSTOP)  # it must not end before the second has begun
        with started(*command, "--json") as second:
            out, err = second.communicate()
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 2
        error = json.loads(out)["error"]
        assert (error["code"], str(first.pid) in error["cause"]) == ("CAU-1004", True)
        assert error["fix"] in err.replace("\n", " ")
        first.communicate()
    assert first.returncode == 0
    (made,) = list_artifacts(tmp_path / "w", "corpus")
    open_artifact(made.path, verify="digest")


def test_two_different_builds_share_a_workspace(tmp_path: Path) -> None:
    sources = [jsonl(tmp_path / f"{name}.jsonl", 12, 50 * number) for number, name in enumerate("ab")]
    common = ("--workers", "1", "--workspace", str(tmp_path / "w"), "--json")
    with started("data", "build", sources[0], *common) as one, started("data", "build", sources[1], *common) as two:
        results = [json.loads(process.communicate()[0].strip().split("\n")[-1]) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0]
    assert results[0]["key"] != results[1]["key"]
    for result, source in zip(results, sources, strict=True):
        alone = build(DataBuildConfig((source,), workers=1), tmp_path / "alone")
        assert open_artifact(Path(result["path"]), verify="digest").manifest.files == alone.manifest.files


NAMES = [
    "line\nbreak.txt",
    "tab\tand 'quote\".txt",
    "<b>bold&.txt",
    "\x1b[31mred.txt",
    "é à ü.txt",
    "-dash.txt",
    "{x}%s.txt",
]


def test_names_with_line_breaks_and_worse_are_read_and_written_down_on_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_text(prose(number))
    (folder / os.fsdecode(b"latin-\xe9.txt")).write_text(prose(20))
    labels = [file.label for file in find_sources((str(folder),), tmp_path)]
    assert len(set(labels)) == len(NAMES) + 1
    assert all(label.isprintable() for label in labels)
    assert {"line\\nbreak.txt", "\\x1b[31mred.txt", "latin-\\udce9.txt", "é à ü.txt"} <= {*labels}
    made = build(DataBuildConfig((str(folder),), workers=2), tmp_path / "w")
    assert made.manifest.metrics["documents_kept"] == len(NAMES) + 1
    texts = {document["id"]: document["text"] for document in corpus_documents(made.path)}
    assert texts["line\\nbreak.txt#0"] == prose(0)
    report = (made.path / "report.html").read_text()
    assert "<b>bold" not in report
    assert "\x1b" not in report
    shards = tmp_path / "t"
    shards.mkdir()
    (shards / "tokenizer.json").write_text("{}")
    packed = pack(PackConfig(made.path, shards, val_fraction=0.3), tmp_path / "w", Bytes())
    (tmp_path / "list").write_text("line\\nbreak.txt#0\n\n")
    left = remove(RemoveConfig(packed.path, listed=tmp_path / "list"), tmp_path / "w")
    counts = left.manifest.metrics
    assert counts["train_documents"] + counts["val_documents"] == len(NAMES)


def test_a_file_that_vanishes_while_it_is_read_is_told_with_its_place(tmp_path: Path, monkeypatch) -> None:
    source = jsonl(tmp_path / "in.jsonl", 3)
    files = find_sources((source,), tmp_path)
    monkeypatch.setattr(BUILD, "find_sources", lambda *_: files)
    for file in files:
        file.path.unlink()
    with pytest.raises((CauserieError, FileNotFoundError), match=r"in\.jsonl|No such file"):
        build(DataBuildConfig((source,), workers=1), tmp_path / "w")
    assert list_artifacts(tmp_path / "w", "corpus") == []


def test_a_run_held_by_another_does_not_stop_what_is_finished(tmp_path: Path) -> None:
    """The artifact is there: whoever holds the run's folder, the answer is at hand."""
    config = DataBuildConfig((jsonl(tmp_path / "in.jsonl", 3),), workers=1)
    made = build(config, tmp_path / "w")
    with open_run(tmp_path / "w", "corpus", "corpus", made.key, {}):
        assert build(config, tmp_path / "w").manifest.files == made.manifest.files
    assert len(read_ledger(made.path)) == 3
