"""The planning commands: configurations, and functions that return plain dictionaries."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from causerie.core import CauserieError, read_json, read_manifest, sha256_json, write_json
from causerie.model import ModelShape, shape_from_depth, shape_from_hf
from causerie.plan.count import count, memory
from causerie.plan.law import fit_from_dict, fit_law


@dataclass(frozen=True)
class CountConfig:
    """`plan count` and `plan memory`: what a shape has and costs."""

    model: Path | None = None
    """A model folder or its config.json; None: the shape of `depth`."""
    depth: int = 4
    """The dial of our own series."""
    vocab_size: int = 8192
    """Vocabulary of the dialled shape."""
    seq_len: int | None = None
    """Context; None for the longest the model is meant for."""
    batch_size: int = 1
    """Sequences per step, for the memory of training."""
    recompute: bool = False
    """Count activations as if they were computed again in the backward pass."""


@dataclass(frozen=True)
class FitConfig:
    """`plan fit`: a scaling law from a table of runs."""

    runs: Path
    """CSV (with a header) or JSONL; one run a row."""
    out: Path | None = None
    """JSON file for the fit; None: only shown."""
    n_column: str = "N"
    """Column of parameters; say in `counting` what counts as one."""
    d_column: str = "D"
    """Column of training tokens."""
    loss_column: str = "loss"
    """Column of final losses."""
    counting: str = "as in the table"
    """How N was counted; kept with the fit, since half of a law is its convention."""
    drop_highest: int = 0
    """Runs of highest loss to leave out; the number is kept with the fit."""
    min_tokens_per_param: float = 0.0
    """Leave out runs with fewer tokens per parameter."""
    bootstrap: int = 200
    """Resamplings for the intervals."""
    seed: int = 0
    """Seed of the resampling."""


@dataclass(frozen=True)
class PredictConfig:
    """`plan predict`: a dated prediction, written before the run."""

    law: Path
    """A fit written by `plan fit --out`."""
    out: Path | None = None
    """JSON file for the prediction; never overwritten. None: only shown."""
    params: float | None = None
    """Parameters of the planned model, counted as in the fit."""
    tokens: float | None = None
    """Tokens of the planned run."""
    flops: float | None = None
    """A budget instead of `params` and `tokens`: the best split is predicted."""
    level: float = 0.9
    """Level of the interval."""
    note: str = ""
    """What is going to be run."""


@dataclass(frozen=True)
class ScoreConfig:
    """`plan score`: a prediction against what was measured."""

    prediction: Path
    """A file written by `plan predict --out`."""
    measured: float | None = None
    """The measured loss; or give `model`."""
    model: Path | None = None
    """Artifact folder of the run's model: its metric is the measured loss, its dates tell what came first."""
    metric: str = "val_loss_after"
    """Which metric of the model's manifest."""


def plan_count(config: CountConfig) -> dict[str, Any]:
    """Parameters, FLOPs per token and memory of a shape."""
    shape = _shape(config)
    sizes = memory(shape, batch_size=config.batch_size, seq_len=config.seq_len, recompute=config.recompute)
    return {"shape": asdict(shape), **count(shape, seq_len=config.seq_len), "memory_bytes": sizes}


def _shape(config: CountConfig) -> ModelShape:
    if config.model is None:
        return shape_from_depth(config.depth, config.vocab_size)
    path = config.model / "config.json" if config.model.is_dir() else config.model
    return shape_from_hf(read_json(path), where=str(path))


def plan_fit(config: FitConfig) -> dict[str, Any]:
    """Fit a law to a table of runs; written to `out` when given.

    Raises:
        CauserieError: CAU-4302 when the table cannot be read or is too small.
    """
    table, bad = _read_runs(config)
    rows = len(table)
    table = table[table[:, 1] / table[:, 0] >= config.min_tokens_per_param]
    few_tokens = rows - len(table)
    table = table[np.argsort(table[:, 2], kind="stable")][: max(0, len(table) - config.drop_highest)]
    fit = fit_law(table[:, 0], table[:, 1], table[:, 2], bootstrap=config.bootstrap, seed=config.seed)
    dropped = {"unreadable": bad, "few_tokens": few_tokens, "highest": config.drop_highest}
    result = {**fit.as_dict(), "counting": config.counting, "dropped": dropped, "source": config.runs.name}
    if config.out:
        write_json(config.out, result)
    return result


def _read_runs(config: FitConfig) -> tuple[np.ndarray, int]:
    """N, D and loss of the rows that have all three as positive numbers, (R, 3), and how many have not."""
    columns = (config.n_column, config.d_column, config.loss_column)
    try:
        with open(config.runs, encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file) if config.runs.suffix == ".csv" else map(json.loads, filter(str.strip, file))
            rows = list(lines)
    except (OSError, ValueError, csv.Error) as error:
        raise _no_table(config, str(error)) from error
    if rows and isinstance(rows[0], dict) and (missing := [name for name in columns if name not in rows[0]]):
        raise _no_table(config, f"there is no column {missing[0]!r}")
    good = [values for row in rows if (values := _numbers(row, columns)) is not None]
    return np.array(good, dtype=float).reshape(-1, 3), len(rows) - len(good)


def _numbers(row: Any, columns: tuple[str, ...]) -> list[float] | None:
    try:
        values = [float(row[name]) for name in columns]
    except (KeyError, TypeError, ValueError):
        return None
    return values if all(math.isfinite(value) and value > 0 for value in values) else None


def _no_table(config: FitConfig, cause: str) -> CauserieError:
    fix = "give a CSV or JSONL of runs, and name its columns with n_column, d_column, loss_column"
    return CauserieError("CAU-4302", cause, where=str(config.runs), fix=fix)


def plan_predict(config: PredictConfig) -> dict[str, Any]:
    """Predict a run's loss with an interval; dated, and written to `out` when given.

    Raises:
        CauserieError: CAU-4301 when neither sizes nor a budget are given, CAU-4303 when `law` is no fit, CAU-4304
            when `out` exists.
    """
    stored = read_json(config.law)
    fit = fit_from_dict(stored, str(config.law))
    if any(value is not None and not 0 < value < math.inf for value in (config.params, config.tokens, config.flops)):
        raise CauserieError("CAU-4301", "params, tokens or flops is not a positive number", fix="give numbers above 0")
    if config.flops is not None and config.params is None and config.tokens is None:
        params, tokens = fit.law.best_split(config.flops)
    elif config.params is not None and config.tokens is not None and config.flops is None:
        params, tokens = config.params, config.tokens
    else:
        raise CauserieError("CAU-4301", "what is to be predicted is not clear", fix="give params and tokens, or flops")
    if not 0 < config.level < 1:
        raise CauserieError("CAU-4301", f"level is {config.level}", where="level", fix="give a number between 0 and 1")
    loss, low, high = fit.predict(params, tokens, config.level)
    result: dict[str, Any] = {
        "kind": "prediction",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": params,
        "tokens": tokens,
        "loss": loss,
        "interval": [low, high],
        "level": config.level,
        "interval_covers": "the choice of runs that the law was fitted to; not a wrong form, nor the noise of a run",
        "extrapolation": params * tokens / fit.largest["nd"],
        "law": asdict(fit.law),
        "law_digest": sha256_json(stored),
        "counting": stored.get("counting", ""),
        "note": config.note,
    }
    result["digest"] = sha256_json(result)
    if config.out:
        if config.out.exists():
            fix = "choose another file name: a prediction is written once, before the run"
            raise CauserieError("CAU-4304", "this prediction exists", where=str(config.out), fix=fix)
        write_json(config.out, result)
    return result


def plan_score(config: ScoreConfig) -> dict[str, Any]:
    """Compare a prediction with the measured loss.

    Returns:
        `predicted`, `measured`, `relative_error` (measured / predicted - 1), `within_interval`, `extrapolation`, and
        `made_before_run`: whether the prediction is older than the run's beginning (None when that is not known).

    Raises:
        CauserieError: CAU-4303 when the file is no prediction or was changed, CAU-4305 when nothing was measured.
    """
    stored = read_json(config.prediction)
    prediction: dict[str, Any] = stored if isinstance(stored, dict) else {}
    content = {key: value for key, value in prediction.items() if key != "digest"}
    if content.get("kind") != "prediction" or prediction.get("digest") != sha256_json(content):
        cause = "not a prediction, or changed since it was written"
        raise CauserieError("CAU-4303", cause, where=str(config.prediction), fix="use the file as it was written")
    measured, began = _measured(config)
    low, high = prediction["interval"]
    made = datetime.fromisoformat(prediction["created"])
    return {
        "predicted": prediction["loss"],
        "interval": [low, high],
        "level": prediction["level"],
        "measured": measured,
        "relative_error": measured / prediction["loss"] - 1,
        "within_interval": low <= measured <= high,
        "extrapolation": prediction["extrapolation"],
        "predicted_on": prediction["created"],
        "made_before_run": None if began is None else made <= began,
    }


def _measured(config: ScoreConfig) -> tuple[float, datetime | None]:
    if config.measured is not None:
        return config.measured, None
    if config.model is None:
        raise CauserieError("CAU-4305", "nothing was measured", fix="give measured or model")
    manifest = read_manifest(config.model)
    value = manifest.metrics.get(config.metric)
    if not isinstance(value, int | float):
        known = ", ".join(sorted(manifest.metrics)) or "none"
        fix = f"choose one of its metrics: {known}"
        raise CauserieError("CAU-4305", f"there is no metric {config.metric!r}", where=str(config.model), fix=fix)
    seconds = float(manifest.metrics.get("seconds", 0))
    return float(value), datetime.fromisoformat(manifest.created) - timedelta(seconds=seconds)
