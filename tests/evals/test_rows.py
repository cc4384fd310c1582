"""Reading evaluation data: places in messages, ids that stay, even samples."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from causerie.core import CauserieError
from causerie.evals.rows import at_least_one, messages_field, named, read_rows, spread, text_field


def test_rows_come_with_their_place_and_strange_line_ends_stay_inside(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a\u2028b\x85c"}\n\n{"text": "d"}\n', encoding="utf-8")
    assert list(read_rows(path)) == [(f"{path}:1", {"text": "a\u2028b\x85c"}), (f"{path}:3", {"text": "d"})]


@pytest.mark.parametrize("line", ["{", "[1]", "1", '"text"', "[" * 100_000])
def test_broken_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(CauserieError) as caught:
        list(read_rows(path))
    assert (caught.value.code, caught.value.where) == ("CAU-1006", f"{path}:2")


def test_ids_are_the_rows_own_or_their_contents_digest() -> None:
    rows = [
        ("f:1", {"id": 7}),
        ("f:2", {"key": "k"}),
        ("f:3", {"text": "x"}),
        ("f:4", {"text": "x"}),
        ("f:5", {"text": "y"}),
    ]
    names = [name for name, *_ in named(rows)]
    assert names[:2] == ["7", "k"]
    assert names[3] == f"{names[2]}#2"
    assert len(set(names)) == 5
    assert names[4] == next(name for name, *_ in named(rows[4:]))  # does not depend on its neighbours


def test_messages_are_checked_field_by_field() -> None:
    assert messages_field({"prompt": "hi"}, "prompt", "f:1") == [{"role": "user", "content": "hi"}]
    good = {"role": "user", "content": "hi"}
    for broken, where in (
        ([], "f:1"),
        ([good, {"role": "user"}], "f:1 prompt[1]"),
        (["hi"], "f:1 prompt[0]"),
        (None, "f:1"),
    ):
        with pytest.raises(CauserieError) as caught:
            messages_field({"prompt": broken}, "prompt", "f:1")
        assert (caught.value.code, caught.value.where) == ("CAU-4204", where)


def test_text_must_be_text() -> None:
    with pytest.raises(CauserieError, match="found int"):
        text_field({"text": 3}, "text", "f:1")


@pytest.mark.parametrize(("n", "limit", "expected"), [(10, 0, 10), (10, 20, 10), (10, 3, 3), (1000, 7, 7), (0, 5, 0)])
def test_a_sample_is_even_and_keeps_the_order(n: int, limit: int, expected: int) -> None:
    found = spread(range(n), limit)
    assert len(found) == expected
    assert found == sorted(set(found))
    if 0 < limit < n:
        gaps = {second - first for first, second in itertools.pairwise(found)}
        assert max(gaps) - min(gaps) <= 1
        assert found[0] == 0


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CauserieError) as caught:
        at_least_one([], tmp_path)
    assert caught.value.code == "CAU-4203"
