"""Artifacts are whole or absent, whatever kills the process that writes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import (
    CauserieError,
    artifact_key,
    artifact_path,
    code_digest,
    content_key,
    existing_artifact,
    find_artifact,
    list_artifacts,
    open_artifact,
    write_artifact,
)

WRITER = """
import sys
from pathlib import Path
from causerie.core import write_artifact
with write_artifact(Path(sys.argv[1]), "kind", "name", "k" * 64, config={"a": 1}) as draft:
    (draft.path / "one.txt").write_text("one")
    (draft.path / "sub").mkdir()
    (draft.path / "sub" / "two.bin").write_bytes(bytes(range(256)))
    draft.metrics["count"] = 2
"""
KEY = "k" * 64


def run_writer(workspace: Path, **environment: str) -> int:
    done = subprocess.run([sys.executable, "-c", WRITER, str(workspace)], env={**os.environ, **environment})
    return done.returncode


def crash_points(tmp_path: Path) -> list[str]:
    log = tmp_path / "points.txt"
    assert run_writer(tmp_path / "dry", CAUSERIE_CRASH_LOG=str(log)) == 0
    return list(dict.fromkeys(log.read_text().split()))


def test_whole_or_absent_at_every_crash_point(tmp_path: Path) -> None:
    points = crash_points(tmp_path)
    assert {"artifact.before_manifest", "artifact.before_rename", "artifact.after_rename"} <= set(points)
    for point in points:
        workspace = tmp_path / point
        assert run_writer(workspace, CAUSERIE_CRASH_AT=point) == -signal.SIGKILL
        found = find_artifact(workspace, "kind", "name", KEY)
        if found is not None:
            open_artifact(found.path, verify="digest")
        assert (found is not None) == (point == "artifact.after_rename")
        assert run_writer(workspace) == 0
        assert find_artifact(workspace, "kind", "name", KEY) is not None


def test_what_a_killed_process_left_is_swept_and_a_living_ones_draft_is_not(tmp_path: Path) -> None:
    for point in ("artifact.before_manifest", "artifact.before_rename"):
        assert run_writer(tmp_path, CAUSERIE_CRASH_AT=point) == -signal.SIGKILL
        assert len(list((tmp_path / "kind").glob(".*.part"))) == 1
    with write_artifact(tmp_path, "kind", "name", "k" * 64) as draft:
        (draft.path / "one.txt").write_text("mine")
        assert [path for path in (tmp_path / "kind").glob(".*.part") if path != draft.path] == []
        with write_artifact(tmp_path, "kind", "name", "k" * 64) as other:
            (other.path / "one.txt").write_text("another writer of the same artifact")
        assert (draft.path / "one.txt").read_text() == "mine"
    assert (artifact_path(tmp_path, "kind", "name", KEY) / "one.txt").read_text() == "mine"
    assert list((tmp_path / "kind").glob(".*")) == []


def make(workspace: Path) -> Path:
    with write_artifact(workspace, "kind", "name", KEY) as draft:
        (draft.path / "data.bin").write_bytes(b"0123456789" * 10)
    return artifact_path(workspace, "kind", "name", KEY)


@given(position=st.integers(0, 99), bit=st.integers(0, 7))
@settings(max_examples=25, deadline=None)
def test_a_flipped_bit_is_found_by_digest(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = make(tmp_path_factory.mktemp("bits"))
    content = bytearray((folder / "data.bin").read_bytes())
    content[position] ^= 1 << bit
    (folder / "data.bin").write_bytes(content)
    open_artifact(folder)
    with pytest.raises(CauserieError) as caught:
        open_artifact(folder, verify="digest")
    assert caught.value.code == "CAU-1002"
    assert "data.bin" in caught.value.where


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_short_or_missing_file_is_found_by_size(workspace: Path, damage: str) -> None:
    folder = make(workspace)
    if damage == "truncate":
        (folder / "data.bin").write_bytes(b"short")
    else:
        (folder / "data.bin").unlink()
    with pytest.raises(CauserieError, match=r"bytes where|missing"):
        open_artifact(folder)
    assert find_artifact(workspace, "kind", "name", KEY) is None
    assert list_artifacts(workspace, "kind") == []


def test_an_error_inside_leaves_nothing(workspace: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_artifact(workspace, "kind", "name", KEY) as draft:
        (draft.path / "x").write_text("x")
        raise ZeroDivisionError
    assert list((workspace / "kind").iterdir()) == []


def test_garbage_manifest_names_the_file(workspace: Path) -> None:
    folder = make(workspace)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CauserieError) as caught:
        open_artifact(folder)
    assert caught.value.code == "CAU-1003"
    (folder / "manifest.json").write_text(json.dumps({"kind": "x", "unknown": 1}))
    with pytest.raises(CauserieError, match="not a manifest"):
        open_artifact(folder)


def test_key_depends_on_everything_that_matters() -> None:
    base = artifact_key("kind", {"a": 1}, {"in": "x"}, "code")
    assert base == artifact_key("kind", {"a": 1}, {"in": "x"}, "code")
    others = [
        artifact_key("other", {"a": 1}, {"in": "x"}, "code"),
        artifact_key("kind", {"a": 2}, {"in": "x"}, "code"),
        artifact_key("kind", {"a": 1}, {"in": "y"}, "code"),
        artifact_key("kind", {"a": 1}, {"in": "x"}, "edoc"),
    ]
    assert len({base, *others}) == 5
    assert code_digest("causerie.core") != code_digest("causerie.core.artifact")


def test_read_only_place_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "kind").write_text("a file where a folder should be")
    with pytest.raises(CauserieError) as caught, write_artifact(tmp_path, "kind", "name", KEY):
        pass
    assert caught.value.code == "CAU-1007"
    assert caught.value.fix


def test_key_follows_the_content_of_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    before = content_key(tmp_path)
    assert before == content_key(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("{} \n")
    assert content_key(tmp_path) != before
    assert content_key(tmp_path / "pairs.jsonl") != content_key(tmp_path)
    with pytest.raises(CauserieError) as caught:
        content_key(tmp_path / "nothing")
    assert caught.value.code == "CAU-1001"


def test_nothing_but_an_artifact_of_its_kind_is_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    (mine / "summer.jpg").write_bytes(b"jpg")
    (tmp_path / "notes.txt").write_text("notes")
    with write_artifact(tmp_path / "corpus", "corpus", "name", KEY, exact=True):
        pass
    for out in (mine, tmp_path / "notes.txt", tmp_path / "corpus"):
        with pytest.raises(CauserieError) as found:
            existing_artifact(out, tmp_path, "kind", "name", KEY)
        with pytest.raises(CauserieError) as caught, write_artifact(out, "kind", "name", KEY, exact=True):
            pass
        assert found.value.code == caught.value.code == "CAU-1009"
        assert caught.value.where == str(out)
    assert (mine / "summer.jpg").read_bytes() == b"jpg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "notes.txt", "photos"]


def test_an_artifact_is_found_where_it_was_asked_for(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for out in (empty, tmp_path / "absent", None):
        assert existing_artifact(out, tmp_path, "kind", "name", KEY) is None
    place = tmp_path / "here"
    for key in ("j" * 64, KEY):  # the second replaces the first
        with write_artifact(place, "kind", "name", key, exact=True):
            pass
    made = existing_artifact(place, tmp_path, "kind", "name", KEY)
    assert made is not None
    assert made.path == place
    assert existing_artifact(place, tmp_path, "kind", "name", "j" * 64) is None


def test_an_input_that_is_missing_is_not_called_a_failed_write(workspace: Path, tmp_path: Path) -> None:
    absent = tmp_path / "input.txt"
    with pytest.raises(FileNotFoundError), write_artifact(workspace, "kind", "name", KEY):
        absent.read_text()
    assert list((workspace / "kind").iterdir()) == []


def test_an_artifact_never_takes_the_place_of_what_it_is_made_from(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    with write_artifact(out, "corpus", "c", "a" * 64, exact=True) as draft:
        (draft.path / "x").write_text("the pages")
    inputs = {"corpus": "a" * 64}
    for attempt in (
        lambda: existing_artifact(out, tmp_path, "corpus", "c", "b" * 64, inputs),
        lambda: write_artifact(out, "corpus", "c", "b" * 64, inputs=inputs, exact=True).__enter__(),
    ):
        with pytest.raises(CauserieError, match="made from") as caught:
            attempt()
        assert caught.value.code == "CAU-1009"
    assert (out / "x").read_text() == "the pages"


def test_many_that_write_one_artifact_at_once_leave_one_whole_artifact(tmp_path: Path) -> None:
    """Whoever comes second finds the place taken just now; nobody fails, nothing is left beside."""
    barrier = threading.Barrier(6)
    problems: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with write_artifact(tmp_path, "tokenizer", "t", "c" * 64) as draft:
                (draft.path / "x").write_text(str(number))
                barrier.wait()
        except BaseException as error:
            problems.append(error)

    for _ in range(5):
        crew = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        assert problems == []
        (made,) = list_artifacts(tmp_path, "tokenizer")
        assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]
        open_artifact(made.path, verify="digest")
