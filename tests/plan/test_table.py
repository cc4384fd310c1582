"""Tables of runs from CSV and JSONL: the same content gives the same table, whatever is wrong is said with its row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.plan import FitConfig
from causerie.plan.table import read_rows, read_runs

numbers = st.floats(1e-3, 1e15, allow_nan=False)
anything = st.one_of(
    st.floats(), st.text(max_size=5), st.none(), st.integers(-5, 5), st.booleans(), st.lists(st.integers(), max_size=2)
)


def csv_of(rows: list[tuple[float, float, float]]) -> str:
    return "\n".join(["N,D,loss", *(",".join(map(repr, row)) for row in rows)]) + "\n"


def jsonl_of(rows: list[tuple[float, float, float]]) -> str:
    return "\n".join(json.dumps(dict(zip(("N", "D", "loss"), row, strict=True))) for row in rows) + "\n"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8))
def test_csv_and_jsonl_say_the_same(tmp_path: Path, rows: list[tuple[float, float, float]]) -> None:
    (tmp_path / "a.csv").write_text(csv_of(rows))
    (tmp_path / "a.jsonl").write_text(jsonl_of(rows))
    first, second = (read_runs(FitConfig(tmp_path / name)) for name in ("a.csv", "a.jsonl"))
    assert np.array_equal(first.values, second.values)
    assert sorted(map(tuple, first.values.tolist())) == sorted(rows)
    assert first.values[:, 2].tolist() == sorted(row[2] for row in rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.sampled_from(["N", "D", "loss"]), anything), min_size=1, max_size=5))
def test_any_row_is_used_or_listed(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """Nothing is lost in silence, whatever stands in the table."""
    whole = [{"N": 1.0, "D": 2.0, "loss": 3.0}, *rows]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in whole))
    config = FitConfig(tmp_path / "a.jsonl", skip_bad=True)
    table = read_runs(config)
    assert len(table.values) + len(table.dropped) == len(whole)
    assert (np.isfinite(table.values) & (table.values > 0)).all()
    assert sum(table.counts().values()) == len(table.dropped)
    if table.dropped:
        with pytest.raises(CauserieError) as caught:
            read_runs(replace(config, skip_bad=False))
        assert f"row {table.dropped[0]['row']}" in caught.value.where


def test_other_column_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("params,tokens,c4\n1e8,2e9,3.1\n")
    config = FitConfig(tmp_path / "a.csv", n_column="params", d_column="tokens", loss_column="c4")
    assert read_runs(config).values.tolist() == [[1e8, 2e9, 3.1]]
    with pytest.raises(CauserieError, match="'N'"):
        read_runs(FitConfig(tmp_path / "a.csv"))


def test_dropping_more_than_there_are_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_of([(1.0, 2.0, 3.0), (1.0, 2.0, 4.0)]))
    table = read_runs(FitConfig(tmp_path / "a.csv", drop_highest=9))
    assert table.values.shape == (0, 3)
    assert [row["row"] for row in table.dropped] == [1, 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", "{not json}\n"), ("a.csv", "N,D,loss\n\0\n"), ("a.csv", "\xff\xfe"), ("absent.csv", None)],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(CauserieError) as caught:
        rows = read_rows(tmp_path / name, ("N", "D", "loss"))
        read_runs(FitConfig(tmp_path / name))
        assert rows is not None
    assert caught.value.code == "CAU-4302"
    assert name in caught.value.where
