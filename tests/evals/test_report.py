"""The report: looking figures up, the table, reading it back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causerie.core import CauserieError
from causerie.evals import EvalReport, Item, Metric, SuiteResult, compare
from causerie.evals.report import figures_of, report_from_dict, suite_from_dict, suite_to_dict

METRICS = (Metric("right", "higher", "right answers"), Metric("unused", "lower", "never measured"))


def result(right: int, of: int) -> SuiteResult:
    items = tuple(Item(str(n), {"right": float(n < right)}, detail={"n": n}) for n in range(of))
    return SuiteResult("demo", METRICS, items, {"rows cut": 2, "rows left out": 0})


def report(against: SuiteResult | None = None) -> EvalReport:
    mine, others = [result(8, 10)], [against] if against else []
    figures, theirs = figures_of(mine, seed=0, confidence=0.95), figures_of(others, seed=0, confidence=0.95)
    compared = tuple(compare(mine, others, seed=0))
    counts = {"demo": mine[0].counts}
    return EvalReport(Path("here"), "new", "old" if against else None, figures, theirs, compared, counts)


def test_figures_are_found_by_name() -> None:
    made = report(result(5, 10))
    assert made.value("demo", "right") == 0.8
    assert made.against_value("demo", "right") == 0.5
    with pytest.raises(KeyError, match=r"demo\.unused was not measured"):
        made.value("demo", "unused")


def test_table_without_comparison() -> None:
    head, row, note = report().table().split("\n")
    assert head.split() == ["suite", "metric", "value", "interval", "items"]
    assert row.split() == ["demo", "right", "0.8", "0.4902", "to", "0.9433", "10"]
    assert note == "demo: rows cut 2"


def test_table_with_comparison_shows_sign_interval_and_p() -> None:
    row = report(result(5, 10)).table().split("\n")[1].split()
    assert row[7:9] == ["0.5", "+0.3"]
    assert float(row[-1]) == 0.25  # three items differ, all one way: 2 of 2³ sign patterns


def test_a_metric_that_only_one_side_has_is_shown_without_difference() -> None:
    other = SuiteResult("demo", (Metric("else", "higher", ""),), (Item("0", {"else": 1.0}),))
    assert report(other).compared == ()
    made = report(result(5, 10))
    lone = EvalReport(made.path, "new", "old", made.figures * 2, made.against_figures, made.compared, {})
    assert len(lone.table().split("\n")) == 3


def test_report_and_suite_survive_json() -> None:
    made = report(result(5, 10))
    assert report_from_dict(json.loads(json.dumps(made.as_dict())), made.path) == made
    assert suite_from_dict(json.loads(json.dumps(suite_to_dict(result(3, 4))))) == result(3, 4)


@pytest.mark.parametrize("broken", [{}, {"figures": []}, {"compared": [{"suite": "x"}]}])
def test_a_broken_report_is_an_error(broken: dict) -> None:
    with pytest.raises(CauserieError) as caught:
        report_from_dict(broken, Path("here"))
    assert caught.value.code == "CAU-1003"
