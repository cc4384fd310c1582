"""Predictions: written and signed before a run, scored in the same file when it has ended."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, read_json, read_manifest, sha256_json, write_json
from causerie.plan.config import PredictConfig, ScoreConfig
from causerie.plan.law import Fit, fit_from_dict
from causerie.plan.sign import signed, verified
from causerie.plan.tasks import task_from_dict

RESOLUTION: Final = timedelta(seconds=1)
"""Manifests tell whole seconds, so a run may have begun up to one later than is computed from them."""


def plan_predict(config: PredictConfig, workspace: Path) -> dict[str, Any]:
    """Predict a run's loss with an interval; dated, signed, and written to `out` when given.

    Raises:
        CauserieError: CAU-4301 when neither sizes nor a budget are given, CAU-4303 when `law` is no fit, CAU-4304
            when `out` exists.
    """
    stored = read_json(config.law)
    fit = fit_from_dict(stored, str(config.law))
    params, tokens = _question(config, fit)
    loss, low, high = fit.predict(params, tokens, config.level)
    content: dict[str, Any] = {
        "kind": "prediction",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": params,
        "tokens": tokens,
        "loss": loss,
        "interval": [low, high],
        "level": config.level,
        "interval_covers": "the choice of runs and one run's scatter about the law; not a wrong form of law",
        "extrapolation": params * tokens / fit.largest["nd"],
        "law": asdict(fit.law),
        "law_digest": sha256_json(stored),
        "counting": stored.get("counting", ""),
        "note": config.note,
    }
    if config.task is not None:
        task = task_from_dict(read_json(config.task), str(config.task))
        value, under, over = task.predict(loss)
        content["task"] = {"name": task.name, "error": value, "interval": [under, over]}
    if config.out and config.out.exists():
        fix = "choose another file name: a prediction is written once, before the run"
        raise CauserieError("CAU-4304", "this prediction exists", where=str(config.out), fix=fix)
    result = signed(content, workspace)
    if config.out:
        write_json(config.out, result)
    return result


def _question(config: PredictConfig, fit: Fit) -> tuple[float, float]:
    """Parameters and tokens that are asked about."""
    for name in ("params", "tokens", "flops"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise CauserieError("CAU-4301", f"{name} is {value}", where=name, fix="give a positive number")
    if not 0 < config.level < 1:
        raise CauserieError("CAU-4301", f"level is {config.level}", where="level", fix="give a number between 0 and 1")
    if config.flops is not None and config.params is None and config.tokens is None:
        return fit.law.best_split(config.flops)
    if config.params is not None and config.tokens is not None and config.flops is None:
        return config.params, config.tokens
    where, fix = "params, tokens, flops", "give params and tokens, or flops"
    raise CauserieError("CAU-4301", "what is to be predicted is not clear", where=where, fix=fix)


def plan_score(config: ScoreConfig, workspace: Path) -> dict[str, Any]:
    """Compare a prediction with the measured loss; the signed score is added to the prediction's file.

    Returns:
        `predicted`, `measured`, `relative_error` (measured / predicted - 1), `within_interval`, `extrapolation`, and
        `made_before_run`: whether the prediction is older than the run's beginning (None when that is not known).

    Raises:
        CauserieError: CAU-4303 when the file is no prediction or was changed, CAU-4305 when nothing was measured.
    """
    stored = read_json(config.prediction)
    prediction = verified(stored, str(config.prediction), kind="prediction")
    measured, began, run = _measured(config)
    low, high = prediction["interval"]
    made = datetime.fromisoformat(prediction["created"])
    score = {
        "kind": "score",
        "scored": datetime.now(UTC).isoformat(timespec="seconds"),
        "predicted": prediction["loss"],
        "interval": [low, high],
        "level": prediction["level"],
        "measured": measured,
        "relative_error": measured / prediction["loss"] - 1,
        "within_interval": low <= measured <= high,
        "extrapolation": prediction["extrapolation"],
        "predicted_on": prediction["created"],
        "run": run,
        "run_began": began.isoformat(timespec="seconds") if began else None,
        "made_before_run": None if began is None else made <= began + RESOLUTION,
        "prediction_digest": stored["digest"],
    }
    write_json(config.prediction, {**stored, "scores": [*stored.get("scores", []), signed(score, workspace)]})
    return score


def _measured(config: ScoreConfig) -> tuple[float, datetime | None, str]:
    """The measured loss, when the run began, and the run's key."""
    if config.measured is not None:
        if not 0 < config.measured < math.inf:
            cause, fix = f"measured is {config.measured}", "give a positive loss"
            raise CauserieError("CAU-4305", cause, where="measured", fix=fix)
        return config.measured, None, ""
    if config.model is None:
        raise CauserieError("CAU-4305", "nothing was measured", where="measured, model", fix="give measured or model")
    manifest = read_manifest(config.model)
    value = manifest.metrics.get(config.metric)
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        known = ", ".join(sorted(manifest.metrics)) or "none"
        fix = f"choose one of its metrics: {known}"
        raise CauserieError("CAU-4305", f"there is no metric {config.metric!r}", where=str(config.model), fix=fix)
    seconds = float(manifest.metrics.get("seconds", 0))
    return float(value), datetime.fromisoformat(manifest.created) - timedelta(seconds=seconds), manifest.key
