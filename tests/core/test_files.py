"""Atomic files and JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causerie.core import CauserieError, read_json, read_jsonl, sha256_json, write_atomic, write_json, write_jsonl


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
