"""`causerie eval MODEL`"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from causerie.cli.flags import command_for
from causerie.cli.talk import folder_of
from causerie.evals import EvalConfig, EvalReport, evaluate


def _evaluate(config: EvalConfig, workspace: Path) -> EvalReport:
    against = folder_of(str(config.against), workspace) if config.against else None
    return evaluate(replace(config, model=folder_of(str(config.model), workspace), against=against), workspace)


run = command_for(
    EvalConfig,
    _evaluate,
    "Measure a model, or two side by side, with intervals.",
    positional=("model",),
    say=lambda report: report.table(),
)
