"""`plan fit`, `plan task` and `plan frontier`: from tables of runs to laws and what they say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from causerie.core import CauserieError, read_json, write_json
from causerie.plan.config import FitConfig, FrontierConfig, TaskConfig
from causerie.plan.frontier import frontier, overtrained, with_inference
from causerie.plan.law import fit_from_dict, fit_law
from causerie.plan.table import read_rows, read_runs
from causerie.plan.tasks import fit_task


def plan_fit(config: FitConfig) -> dict[str, Any]:
    """Fit a law to a table of runs; written to `out` when given. Runs left out are listed in `dropped_rows`.

    Raises:
        CauserieError: CAU-4302 when the table cannot be read, holds bad or repeated runs, or too few.
    """
    if config.bootstrap < 0:
        cause, fix = f"bootstrap is {config.bootstrap}", "give 0 or more"
        raise CauserieError("CAU-4301", cause, where="bootstrap", fix=fix)
    table = read_runs(config)
    n, d, loss = table.values.T
    fit = fit_law(n, d, loss, bootstrap=config.bootstrap, seed=config.seed, tied=config.tied)
    result = {
        **fit.as_dict(),
        "counting": config.counting,
        "dropped": table.counts(),
        "dropped_rows": list(table.dropped),
        "source": config.runs.name,
    }
    if config.out:
        write_json(config.out, result)
    return result


def plan_task(config: TaskConfig) -> dict[str, Any]:
    """Fit a curve from loss to a task's error; written to `out` when given.

    Raises:
        CauserieError: CAU-4302 when the table cannot be read, or its numbers do not do.
    """
    rows = read_rows(config.runs, (config.loss_column, *config.accuracy_columns))
    try:
        loss = np.array([float(row[config.loss_column]) for row in rows])
        errors = [1 - np.mean([float(row[name]) for name in config.accuracy_columns]) for row in rows]
    except (TypeError, ValueError) as error:
        fix = "mend the row, or leave it out"
        raise CauserieError("CAU-4302", str(error), where=str(config.runs), fix=fix) from error
    fit = fit_task(loss, np.array(errors), name=config.name, bootstrap=config.bootstrap).as_dict()
    if config.out:
        write_json(config.out, fit)
    return fit


def plan_frontier(config: FrontierConfig) -> dict[str, Any]:
    """The compute-optimal frontier; also over-trained and inference-aware choices where asked for."""
    fit = fit_from_dict(read_json(config.law), str(config.law))
    rows = frontier(fit, config.flops)
    for row in rows:
        if config.tokens_per_param is not None:
            row["overtrained"] = asdict(overtrained(fit.law, row["flops"], config.tokens_per_param))
        if config.inference_tokens is not None:
            best = with_inference(fit.law, row["loss"], config.inference_tokens)
            plain = row["flops"] + 2 * row["params"] * config.inference_tokens
            row["with_inference"] = {**asdict(best), "saves": 1 - best.flops / plain}
    return {"law": asdict(fit.law), "frontier": rows, "flops": "6 N D of training, 2 N a token of inference"}
