"""The gate's rules, row by row and together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.loop.gate import GateRow, judge


def row(low: float, high: float, **more: object) -> GateRow:
    values: dict = {"meaning": "the figure", "items": 40, "incumbent": 0.0, "candidate": 0.0, **more}
    return GateRow("metric", difference=(low + high) / 2, low=low, high=high, **values)


GOOD = row(0.1, 0.3, floor=0.0, promise=True)
GUARD = row(-0.01, 0.02, ceiling=0.05)


def test_promoted_when_the_promise_is_kept_and_guards_hold() -> None:
    verdict = judge([GOOD, GUARD])
    assert verdict.promoted
    assert "improved (+0.200, interval +0.100 to +0.300, 40 items)" in verdict.why


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(-0.1, 0.3, floor=0.0, promise=True), GUARD], "not enough evidence to tell"),
        ([row(-0.3, -0.1, floor=0.0, promise=True), GUARD], "got worse"),
        ([GOOD, row(0.06, 0.2, ceiling=0.05)], "is outside its margin"),
        ([GOOD, row(0.0, 0.2, ceiling=0.05)], "may be outside its margin"),
        ([GOOD, row(-math.inf, math.inf, ceiling=0.05)], "may be outside"),
        ([GOOD, row(-9, 9, floor=-0.5, ceiling=1.0, by_value=True), row(3, 5, floor=-0.5, ceiling=1.0, by_value=True)], "is outside"),
    ],
)  # fmt: skip
def test_refused_and_said_why(rows: list[GateRow], words: str) -> None:
    verdict = judge(rows)
    assert not verdict.promoted
    assert verdict.why.startswith("refused: ")
    assert words in verdict.why


def test_a_shown_row_decides_nothing() -> None:
    assert judge([GOOD, row(-9.0, -8.0)]).promoted


def test_a_gate_without_a_promise_is_an_error() -> None:
    with pytest.raises(ValueError, match="promise"):
        judge([GUARD])


def test_infinite_ends_become_null_for_the_page() -> None:
    assert row(-math.inf, 1.0, floor=0.0).as_dict()["low"] is None
    assert row(-0.2, 1.0, floor=0.0).as_dict()["margin"] == 0.0


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 1))
def test_more_evidence_never_turns_a_pass_into_a_fail(centre: float, width: float, shrink: float) -> None:
    wide = row(centre - width, centre + width, floor=-0.1, ceiling=0.2)
    narrow = row(centre - width * shrink, centre + width * shrink, floor=-0.1, ceiling=0.2)
    assert not wide.passed or narrow.passed


@pytest.mark.parametrize(("judged", "times"), [(1.0, 1), (0.25, 4), (0.5, 2)])
def test_missing_votes_are_votes_in_all_in_words_and_number(judged: float, times: int) -> None:
    """Of four votes one judges where a quarter is kept: so the round wants four times the items, said once."""
    open_row = row(-0.1, 0.3, floor=0.0, promise=True)
    assert open_row.missing is not None
    verdict = judge([open_row, GUARD], judged)
    assert verdict.missing == open_row.missing * times
    assert f"about {verdict.missing} more votes would" in verdict.why
