"""From an evaluation of candidate against incumbent to the rows of the gate."""

from __future__ import annotations

import math
from typing import Any

from causerie.evals import Compared, EvalReport
from causerie.loop.config import ImproveConfig
from causerie.loop.gate import GateRow

PROMISES = (("preference", "margin_per_token"), ("votes", "agreement"))
ENDS_BY_ITSELF = 0.5
"""Share of ended answers from which a model's answer length is its own."""


def gate_rows(report: EvalReport, config: ImproveConfig) -> list[GateRow]:
    """Rows in the order people read them: what the round is for first, then the guards.

    Args:
        report: an evaluation of the candidate `against` the incumbent: preference and/or votes, answer_loss, ending.
        config: the margins.
    """
    asked: dict[tuple[str, str], dict[str, Any]] = {
        ("preference", "margin_per_token"): {
            "meaning": "preference for what people chose (nats per token)", "floor": 0.0, "promise": True,
        },
        ("votes", "agreement"): {
            "meaning": "agreement with people's thumbs (nats per token)", "floor": 0.0, "promise": True,
        },
        ("preference", "accuracy_per_token"): {"meaning": "share of held-out choices ranked as people did"},
        ("answer_loss", "nats_per_token"): {
            "meaning": "loss on held-out human answers (nats per token)", "ceiling": config.loss_margin,
        },
        ("ending", "ended"): {"meaning": "share of answers that end by themselves", "floor": -config.ending_margin},
        ("ending", "empty"): {"meaning": "share of empty answers", "ceiling": config.empty_margin},
    }  # fmt: skip
    found = {(row.suite, row.metric): row for row in report.compared}
    for other in _other_promises(found):
        asked[other] = {"meaning": asked[other]["meaning"]}
    rows = [_row(report, found[key], limits) for key, limits in asked.items() if key in found]
    length = found.get(("ending", "answer_tokens"))
    return rows if length is None else [*rows, _length_row(report, length, config.length_factor)]


def _other_promises(found: dict[tuple[str, str], Compared]) -> list[tuple[str, str]]:
    """Pairs and thumbs are both shown, but the round is judged by the kind with more held-out votes behind it."""
    promises = [key for key in PROMISES if key in found]
    return sorted(promises, key=lambda key: found[key].difference.n)[:-1]


def _row(report: EvalReport, row: Compared, limits: dict[str, Any]) -> GateRow:
    low, high = row.difference.low, row.difference.high
    return GateRow(
        metric=row.metric,
        incumbent=report.against_value(row.suite, row.metric),
        candidate=report.value(row.suite, row.metric),
        difference=row.difference.value,
        low=-math.inf if low is None else low,
        high=math.inf if high is None else high,
        items=row.difference.n,
        **limits,
    )


def _length_row(report: EvalReport, row: Compared, factor: float) -> GateRow:
    """Length is judged by its value, as a share of the incumbent's: the interval of a few dozen answers is too wide.

    Answers may get shorter without limit where the incumbent hardly ever ended one by itself: its length was the
    limit's, not its own; empty answers have a row of their own.
    """
    usual = max(report.against_value(row.suite, row.metric), 1.0)
    limits: dict[str, Any] = {"meaning": "answer length (tokens)", "ceiling": usual * (factor - 1)}
    if report.against_value(row.suite, "ended") >= ENDS_BY_ITSELF:
        limits["floor"] = usual * (1 / factor - 1)
    return _row(report, row, {**limits, "by_value": True})
