"""`causerie plan ...`: count, fit, predict, score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from causerie.cli.flags import command_for
from causerie.plan import (
    CountConfig,
    FitConfig,
    PredictConfig,
    ScoreConfig,
    plan_count,
    plan_fit,
    plan_predict,
    plan_score,
)

app = App(name="plan", help="Count, fit, predict before paying.", result_action="return_value")


def _without_workspace(function: Any) -> Any:
    def run(config: Any, _workspace: Path) -> Any:
        return function(config)

    return run


app.command(
    command_for(CountConfig, _without_workspace(plan_count), "Parameters, FLOPs and memory of a shape."), name="count"
)
app.command(
    command_for(FitConfig, _without_workspace(plan_fit), "Fit L = E + A/N^α + B/D^β to a table of runs."), name="fit"
)
app.command(
    command_for(PredictConfig, _without_workspace(plan_predict), "Write a dated prediction before a run."),
    name="predict",
)
app.command(
    command_for(ScoreConfig, _without_workspace(plan_score), "Score a prediction with the run's result."), name="score"
)
