"""Evaluation: suites whose every item is kept, and figures with intervals that can be compared pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.evals.config import SUITES, EvalConfig
from causerie.evals.errors import ERRORS
from causerie.evals.report import EvalReport, Figure
from causerie.evals.results import Compared, Item, Metric, SuiteResult, compare, estimate
from causerie.evals.statistics import (
    Difference,
    Interval,
    bootstrap_ratio,
    holm,
    paired_difference,
    wilson,
)

if TYPE_CHECKING:
    from causerie.evals.evaluation import evaluate
    from causerie.evals.ifeval_checks import follows

__all__ = [
    "ERRORS",
    "SUITES",
    "Compared",
    "Difference",
    "EvalConfig",
    "EvalReport",
    "Figure",
    "Interval",
    "Item",
    "Metric",
    "SuiteResult",
    "bootstrap_ratio",
    "compare",
    "estimate",
    "evaluate",
    "follows",
    "holm",
    "paired_difference",
    "wilson",
]

__getattr__ = lazy_names(__name__, {"evaluate": "evaluation", "follows": "ifeval_checks"})
