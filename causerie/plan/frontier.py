"""What a law says about spending: the compute-optimal frontier, over-training, and the optimum with inference paid.

FLOPs are 6 per parameter and token of training, 2 of inference, as the papers count; parameters as in the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from causerie.core import CauserieError
from causerie.plan.law import Fit, Law

GOLDEN: Final = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Choice:
    """A model's size, its training tokens, its loss, and what training and inference cost in FLOPs."""

    params: float
    tokens: float
    loss: float
    train_flops: float
    inference_flops: float = 0.0

    @property
    def flops(self) -> float:
        """Both together."""
        return self.train_flops + self.inference_flops


def optimum(law: Law, flops: float) -> Choice:
    """Least loss for a training budget.

    Raises:
        CauserieError: CAU-4301 when the budget is not a positive number.
    """
    _positive("flops", flops)
    n, d = law.best_split(flops)
    return Choice(n, d, law.loss(n, d), flops)


def overtrained(law: Law, flops: float, tokens_per_param: float) -> Choice:
    """The model that a budget buys at a ratio of tokens to parameters, such as a small one trained for long."""
    _positive("flops", flops)
    _positive("tokens_per_param", tokens_per_param)
    n = math.sqrt(flops / 6 / tokens_per_param)
    d = n * tokens_per_param
    return Choice(n, d, law.loss(n, d), flops)


def tokens_for(law: Law, params: float, loss: float) -> float:
    """Tokens that a size needs to reach a loss; infinity when it never does."""
    left = loss - law.E - law.A * params**-law.alpha
    return (law.B / left) ** (1 / law.beta) if left > 0 else math.inf


def flops_for(law: Law, loss: float) -> float:
    """Least training FLOPs that reach a loss; infinity when the law says that none do.

    On the frontier both terms fall as powers of C: L = E + K C^-g with g = alpha beta / (alpha + beta).
    """
    left = loss - law.E
    if left <= 0:
        return math.inf
    power = law.alpha * law.beta / (law.alpha + law.beta)
    scale = optimum(law, 1e21).loss - law.E
    return 1e21 * (scale / left) ** (1 / power)


def with_inference(law: Law, loss: float, inference_tokens: float) -> Choice:
    """The cheapest model of a quality when it will also serve so many tokens: Sardana & Frankle (arXiv:2401.00448).

    Least 6 N D + 2 N T over N, with D the tokens that N needs to reach `loss`.

    Raises:
        CauserieError: CAU-4301 when the loss is not above the law's floor, or a number is not positive.
    """
    _positive("inference_tokens", inference_tokens, zero=True)
    if not loss > law.E:
        fix = f"give a loss above the law's floor {law.E:.4f}"
        raise CauserieError("CAU-4301", f"loss is {loss}", where="loss", fix=fix)
    least = (law.A / (loss - law.E)) ** (1 / law.alpha)

    def cost(log_n: float) -> float:
        n = math.exp(log_n)
        return math.log(6 * n * tokens_for(law, n, loss) + 2 * n * inference_tokens)

    log_n = _least(cost, math.log(least) + 1e-6, math.log(least) + 40)
    n = math.exp(log_n)
    d = tokens_for(law, n, loss)
    return Choice(n, d, loss, 6 * n * d, 2 * n * inference_tokens)


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """Golden-section search; the cost falls, then rises."""
    for _ in range(200):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, b) if function(a) < function(b) else (a, high)
    return (low + high) / 2


def frontier(fit: Fit, budgets: tuple[float, ...], level: float = 0.9) -> list[dict[str, Any]]:
    """The best split of each budget, with intervals of its parameters, tokens and loss."""
    rows = []
    for flops in budgets:
        best = optimum(fit.law, flops)
        row: dict[str, Any] = {"flops": flops, "params": best.params, "tokens": best.tokens, "loss": best.loss}
        if fit.resampled:
            spread = np.array([[c.params, c.tokens, c.loss] for c in (optimum(law, flops) for law in fit.resampled)])
            low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2], axis=0)
            for place, name in enumerate(("params", "tokens", "loss")):
                row[f"{name}_interval"] = [float(low[place]), float(high[place])]
        rows.append(row)
    return rows


def _positive(name: str, value: float, *, zero: bool = False) -> None:
    if not (value >= 0 if zero else value > 0) or not math.isfinite(value):
        raise CauserieError("CAU-4301", f"{name} is {value}", where=name, fix="give a positive number")
