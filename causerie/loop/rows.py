"""From an evaluation of candidate against incumbent to the rows of the gate, by the rules registered beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from causerie.evals import Compared, EvalReport
from causerie.loop.gate import GateRow
from causerie.loop.protocol import Rule

ENDS_BY_ITSELF = 0.5
"""Share of ended answers from which a model's answer length is its own."""


def gate_rows(report: EvalReport, rules: Sequence[Rule]) -> list[GateRow]:
    """One row for each rule whose figure was measured, in the rules' order.

    A promise or guard that was registered but not measured becomes a row that fails: nothing is waved through.

    Args:
        report: an evaluation of the candidate `against` the incumbent.
        rules: as registered, see `protocol.registered_rules`.
    """
    found = {(row.suite, row.metric): row for row in report.compared}
    rows = []
    for rule in rules:
        compared = found.get((rule.suite, rule.metric))
        if compared is not None:
            rows.append(_row(report, compared, rule))
        elif rule.role != "shown":
            rows.append(_not_measured(rule))
    return rows


def _row(report: EvalReport, compared: Compared, rule: Rule) -> GateRow:
    low, high = compared.difference.low, compared.difference.high
    floor, ceiling = _limits(report, rule)
    return GateRow(
        metric=rule.metric,
        meaning=rule.meaning,
        incumbent=report.against_value(rule.suite, rule.metric),
        candidate=report.value(rule.suite, rule.metric),
        difference=compared.difference.value,
        low=-math.inf if low is None else low,
        high=math.inf if high is None else high,
        items=compared.difference.n,
        floor=floor,
        ceiling=ceiling,
        promise=rule.role == "promise",
        by_value=rule.by_value,
    )


def _limits(report: EvalReport, rule: Rule) -> tuple[float | None, float | None]:
    """Absolute limits of the difference; those of a `factor` follow from the incumbent's own figure.

    Answers may get shorter without limit where the incumbent hardly ever ended one by itself: its length was the
    limit's, not its own; empty answers have a row of their own.
    """
    if rule.factor is None:
        return rule.floor, rule.ceiling
    usual = max(report.against_value(rule.suite, rule.metric), 1.0)
    own = rule.metric != "answer_tokens" or report.against_value(rule.suite, "ended") >= ENDS_BY_ITSELF
    return (usual * (1 / rule.factor - 1) if own else None), usual * (rule.factor - 1)


def _not_measured(rule: Rule) -> GateRow:
    return GateRow(
        metric=rule.metric,
        meaning=f"{rule.meaning}: not measured",
        incumbent=math.nan,
        candidate=math.nan,
        difference=math.nan,
        low=-math.inf,
        high=math.inf,
        items=0,
        floor=rule.floor if rule.floor is not None or rule.ceiling is not None else 0.0,
        ceiling=rule.ceiling,
        promise=rule.role == "promise",
        by_value=rule.by_value,
    )
