"""Atomic files and JSON lines."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causerie.core import (
    CauserieError,
    cannot_write,
    read_json,
    read_jsonl,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
    write_jsonl,
)


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomic(path, "one")
    write_atomic(path, "deux — é")
    assert path.read_text(encoding="utf-8") == "deux — é"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}
    with pytest.raises(CauserieError, match="no such file"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(CauserieError) as caught:
        read_json(tmp_path / "deep.json")
    assert caught.value.code == "CAU-1003"


def test_lines_are_cut_at_newlines_only(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u0085c\x0cd\r\ne"}, {"text": "second"}]
    assert write_jsonl(tmp_path / "x.jsonl", rows) == 2
    assert list(read_jsonl(tmp_path / "x.jsonl")) == rows


@pytest.mark.parametrize("bad", ["{", "[1]", "3", "[" * 100_000])
def test_a_bad_line_is_named_by_number(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"ok": 1}) + "\n" + bad + "\n")
    with pytest.raises(CauserieError) as caught:
        list(read_jsonl(path))
    assert caught.value.code == "CAU-1006"
    assert caught.value.where.endswith("x.jsonl:2")


def test_digest_of_json_ignores_key_order() -> None:
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": "1"})


def test_digest_of_a_file_is_the_published_one(tmp_path: Path) -> None:
    """FIPS 180-2, appendix B: SHA-256 of "abc" and of a million letters a."""
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "many").write_bytes(b"a" * 1_000_000)
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "many") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(value=st.dictionaries(st.text(), JSON, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_comes_back_as_it_was(tmp_path: Path, value: dict[str, Any]) -> None:
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    write_jsonl(tmp_path / "x.jsonl", [value, value])
    assert list(read_jsonl(tmp_path / "x.jsonl")) == [value, value]
    assert sha256_json(value) == sha256_json(json.loads(json.dumps(value)))


def test_a_name_that_is_no_utf8_comes_back_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xff")
    write_json(tmp_path / "x.json", {name: [name]})
    assert read_json(tmp_path / "x.json") == {name: [name]}


def test_bytes_that_are_no_utf8_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes('{"a": "é"}\n'.encode() + '{"a": "é"}\n'.encode("latin-1"))
    with pytest.raises(CauserieError) as caught:
        list(read_jsonl(tmp_path / "x.jsonl"))
    assert (caught.value.code, caught.value.where) == ("CAU-1006", f"{tmp_path / 'x.jsonl'}:2")


def test_threads_that_write_one_file_leave_one_of_their_texts(tmp_path: Path) -> None:
    texts = [f"{number}" * 50_000 for number in range(8)]
    failed: list[BaseException] = []

    def write(text: str) -> None:
        try:
            for _ in range(5):
                write_atomic(tmp_path / "x", text)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (tmp_path / "x").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_atomic(tmp_path / "x", "old")
    with monkeypatch.context() as patched, pytest.raises(CauserieError) as caught:
        patched.setattr(os, step, full)
        write_atomic(tmp_path / "x", "new")
    assert (caught.value.code, caught.value.where) == ("CAU-1007", str(tmp_path / "x"))
    assert "No space left on device" in caught.value.cause
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


@pytest.mark.parametrize(
    "place", [lambda t: Path(), lambda t: t / "file" / "x", lambda t: Path("/"), lambda t: t / ("n" * 300)]
)
def test_places_where_no_file_can_be(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CauserieError) as caught:
        write_atomic(place(tmp_path), "x")
    assert caught.value.code == "CAU-1007"
    assert caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_free_space_is_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    told = cannot_write(tmp_path / "a" / "b" / "c", OSError(errno.EIO, "Input/output error")).cause
    assert told.startswith("cannot write c: Input/output error (")
    assert told.endswith(" MB free)")


def test_a_file_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that a power cut asks for: content flushed, renamed, the folder flushed."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.split('.')[-1]}")
        sync(descriptor)

    def rename(old: Path, new: Path) -> None:
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    write_atomic(tmp_path / "x.json", "{}")
    assert done == ["sync part", "rename", f"sync {tmp_path.name}"]
