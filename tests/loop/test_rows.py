"""From an evaluation to the rows of the gate."""

from __future__ import annotations

from pathlib import Path

from causerie.evals import Compared, Difference, EvalReport, Figure, Interval
from causerie.loop.config import ImproveConfig
from causerie.loop.gate import GateRow
from causerie.loop.protocol import rules
from causerie.loop.rows import gate_rows

MEASURED = {
    # (suite, metric): (incumbent, candidate, low, high, items)
    ("preference", "margin_per_token"): (0.0, 0.2, 0.1, 0.3, 40),
    ("votes", "agreement"): (-2.0, -2.0, None, None, 1),
    ("answer_loss", "nats_per_token"): (2.0, 2.01, 0.0, 0.02, 48),
    ("ending", "ended"): (0.9, 0.9, -0.1, 0.1, 24),
    ("ending", "answer_tokens"): (60.0, 20.0, -50.0, -30.0, 24),
}


def rows(measured: dict, promise: str = "preference") -> dict[str, GateRow]:
    figures, others, compared = [], [], []
    for (suite, metric), (incumbent, candidate, low, high, items) in measured.items():
        for into, value in ((figures, candidate), (others, incumbent)):
            into.append(Figure(suite, metric, "higher", Interval(value, value, value, items, "none"), ""))
        difference = Difference(candidate - incumbent, low, high, 0.5, items)
        compared.append(Compared(suite, metric, "higher", difference, 0.5, 0))
    report = EvalReport(Path(), "a", "b", tuple(figures), tuple(others), tuple(compared), {})
    registered = rules(ImproveConfig(model="demo"), {suite for suite, _ in measured}, promise)
    return {row.metric: row for row in gate_rows(report, registered)}


def test_one_lonely_thumb_is_shown_but_does_not_judge_the_round() -> None:
    found = rows(MEASURED)
    assert found["margin_per_token"].promise
    assert not found["agreement"].promise
    assert found["agreement"].floor is None


def test_thumbs_judge_the_round_where_there_are_more_of_them() -> None:
    found = rows({**MEASURED, ("votes", "agreement"): (-2.0, -1.9, 0.05, 0.15, 90)}, "votes")
    assert found["agreement"].promise
    assert not found["margin_per_token"].promise


def test_answers_may_not_shrink_below_half_when_the_incumbent_ended_them_itself() -> None:
    assert not rows(MEASURED)["answer_tokens"].passed


def test_a_model_that_never_ended_may_learn_to() -> None:
    endless = {
        **MEASURED,
        ("ending", "ended"): (0.0, 0.9, 0.8, 1.0, 24),
        ("ending", "answer_tokens"): (96.0, 17.0, -85.0, -70.0, 24),
    }
    assert rows(endless)["answer_tokens"].passed
    grown = {**endless, ("ending", "answer_tokens"): (96.0, 200.0, 90.0, 120.0, 24)}
    assert not rows(grown)["answer_tokens"].passed
