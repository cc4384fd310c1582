"""How far behind: the scaling law inverted, so that a difference of losses reads as a factor of compute."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from causerie.core import CauserieError, read_json, read_manifest
from causerie.plan.config import GapConfig
from causerie.plan.frontier import flops_for
from causerie.plan.law import Fit, fit_from_dict


def plan_gap(config: GapConfig) -> dict[str, Any]:
    """The factor of compute that A is behind B (below 1: ahead), on the frontier of a law.

    Raises:
        CauserieError: CAU-4301 when a loss is not above the law's floor, CAU-4303 when `law` is no fit, CAU-4305 when
            a folder has no such metric, or the two were measured on different shards.
    """
    fit = fit_from_dict(read_json(config.law), str(config.law))
    a, flops, text = _loss("a", config.a, config.metric)
    b, _, other = _loss("b", config.b, config.metric)
    if text and other and text != other:
        fix = "measure both on the same shards"
        raise CauserieError("CAU-4305", "the two losses are of different texts", where="a, b", fix=fix)
    return gap(fit, a, b, a_flops=config.a_flops or flops, level=config.level)


def _loss(field: str, given: str, metric: str) -> tuple[float, float | None, str]:
    """A loss that was given as a number, or a model folder's: with the FLOPs of its training and its shards' key."""
    try:
        return float(given), None, ""
    except ValueError:
        manifest = read_manifest(Path(given))
    value = manifest.metrics.get(metric)
    if not isinstance(value, int | float):
        fix = f"choose a metric of the model: {', '.join(sorted(manifest.metrics)) or 'it has none'}"
        raise CauserieError("CAU-4305", f"{given} has no metric {metric!r}", where=field, fix=fix)
    per_token, tokens = manifest.metrics.get("flops_per_token"), manifest.metrics.get("tokens")
    flops = float(per_token * tokens) if per_token and tokens else None
    return float(value), flops, manifest.inputs.get("shards", "")


def gap(fit: Fit, a: float, b: float, *, a_flops: float | None = None, level: float = 0.9) -> dict[str, Any]:
    """See `plan_gap`; resampled laws that cannot reach a loss are counted in `out_of_reach`."""
    for name, loss in (("a", a), ("b", b)):
        if not (math.isfinite(loss) and loss > fit.law.E):
            fix = f"give a loss above the law's floor {fit.law.E:.4f}, in the law's unit"
            raise CauserieError("CAU-4301", f"{name} is {loss}", where=name, fix=fix)
    if not 0 < level < 1:
        raise CauserieError("CAU-4301", f"level is {level}", where="level", fix="give a number between 0 and 1")
    factor = flops_for(fit.law, b) / flops_for(fit.law, a)
    pairs = [(flops_for(law, a), flops_for(law, b)) for law in fit.resampled]
    reached = np.array([there / here for here, there in pairs if math.isfinite(here) and math.isfinite(there)])
    result: dict[str, Any] = {
        "loss_a": a,
        "loss_b": b,
        "flops_a": flops_for(fit.law, a),
        "flops_b": flops_for(fit.law, b),
        "behind": factor,
        "out_of_reach": len(pairs) - len(reached),
        "level": level,
        "words": words(factor),
    }
    if len(reached):
        low, high = np.quantile(reached, [(1 - level) / 2, (1 + level) / 2])
        result["behind_interval"] = [float(low), float(high)]
    if a_flops is not None:
        if not 0 < a_flops < math.inf:
            raise CauserieError("CAU-4301", f"a_flops is {a_flops}", where="a_flops", fix="give a positive number")
        result["efficiency_a"] = result["flops_a"] / a_flops
    return result


def words(factor: float) -> str:
    """The factor in a sentence; a doubling of compute is the unit people feel."""
    if factor >= 1:
        return f"A would need {factor:.3g} times its compute to reach B ({math.log2(factor):.2g} doublings)"
    return f"A is ahead: B would need {1 / factor:.3g} times its compute ({-math.log2(factor):.2g} doublings)"
