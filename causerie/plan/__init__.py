"""What a given compute will buy: parameters, FLOPs and memory of a shape; scaling laws, predictions, their scores.

No torch: everything is arithmetic on `ModelShape` and on tables of runs.
"""

from causerie.plan.commands import (
    CountConfig,
    FitConfig,
    PredictConfig,
    ScoreConfig,
    plan_count,
    plan_fit,
    plan_predict,
    plan_score,
)
from causerie.plan.count import count, memory
from causerie.plan.law import Fit, Law, fit_law

__all__ = [
    "CountConfig",
    "Fit",
    "FitConfig",
    "Law",
    "PredictConfig",
    "ScoreConfig",
    "count",
    "fit_law",
    "memory",
    "plan_count",
    "plan_fit",
    "plan_predict",
    "plan_score",
]
