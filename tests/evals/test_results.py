"""Figures and comparisons from items."""

from __future__ import annotations

import pytest

from causerie.core import CauserieError
from causerie.evals import Item, Metric, SuiteResult, compare, estimate, wilson


def suite(values: dict[str, float], metric: str = "right", clusters: dict[str, str] | None = None) -> SuiteResult:
    items = tuple(Item(name, {metric: value}, cluster=(clusters or {}).get(name, "")) for name, value in values.items())
    return SuiteResult("demo", (Metric(metric, "higher", ""),), items)


def test_independent_yes_no_items_get_wilson() -> None:
    got = estimate(suite({"a": 1, "b": 0, "c": 1}), "right", seed=0)
    assert got == wilson(2, 3)


def test_fractions_and_dependent_items_get_a_bootstrap_over_clusters() -> None:
    assert estimate(suite({"a": 1, "b": 0.5, "c": 1}), "right", seed=0).method == "bootstrap"
    got = estimate(suite({"a": 1, "b": 0, "c": 1}, clusters={"a": "x", "b": "x", "c": "y"}), "right", seed=0)
    assert (got.method, got.n) == ("bootstrap", 2)


def test_comparison_pairs_items_by_id_in_any_order() -> None:
    first = suite({"a": 1, "b": 1, "c": 0, "only here": 1})
    second = suite({"c": 0, "b": 0, "a": 1, "only there": 1, "and there": 0})
    (row,) = compare([first], [second], seed=0)
    assert row.difference.value == pytest.approx(1 / 3)
    assert row.difference.n == 3
    assert row.unmatched == 3


def test_holm_adjusts_over_all_metrics() -> None:
    better = {f"i{n}": float(n % 10 > 0) for n in range(40)}
    worse = {f"i{n}": float(n % 3 == 0) for n in range(40)}
    one = compare([suite(better)], [suite(worse)], seed=0)
    two = compare([suite(better), suite_named("b", better)], [suite(worse), suite_named("b", worse)], seed=0)
    assert two[0].holm_p == pytest.approx(min(1, 2 * one[0].holm_p))


def suite_named(name: str, values: dict[str, float]) -> SuiteResult:
    made = suite(values)
    return SuiteResult(name, made.metrics, made.items)


def test_suites_and_metrics_of_only_one_side_are_left_out() -> None:
    assert compare([suite({"a": 1})], [suite_named("other", {"a": 1})], seed=0) == []
    assert compare([suite({"a": 1})], [suite({"a": 1}, metric="wrong")], seed=0) == []


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(CauserieError) as caught:
        compare([suite({"a": 1})], [suite({"b": 1})], seed=0)
    assert caught.value.code == "CAU-4205"
