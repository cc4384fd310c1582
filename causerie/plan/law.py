"""Scaling laws: L(N, D) = E + A / N^alpha + B / D^beta, fitted to a table of runs.

The objective is that of Hoffmann et al. (arXiv:2203.15556, approach 3): the Huber loss, delta 1e-3, of differences of
log losses. Its starts are found by variable projection: for each (alpha, beta) of a grid the best E, A, B are linear
and solved for without negative values; the best starts are then refined by Levenberg-Marquardt steps on
reweighted residuals. Besiroglu et al. (arXiv:2404.10102) show what an optimiser that stops early does to the result.
With tied exponents (alpha = beta) it is the law of Gadre et al. (arXiv:2403.08540), L = E + (a M^n + b M^-n) C^-n with
M = D / N, C = 6 N D, n = alpha / 2: four numbers, which five runs can carry.
Numpy only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError, seed_for

Floats = NDArray[np.float64]

MIN_ROWS: Final = 6
"""One more than the law has parameters; one less with tied exponents."""
STARTS: Final = 8
"""Grid points that are refined."""
BOOTSTRAP_STARTS: Final = 2
"""Best fits of all runs that a fit of resampled runs starts from."""
NAMES: Final = ("E", "A", "B", "alpha", "beta")


@dataclass(frozen=True)
class Law:
    """The five numbers of a law; losses in nats per token, N parameters, D tokens."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n: float, d: float) -> float:
        """Loss of a model of `n` parameters after `d` tokens."""
        return float(self.E + self.A * n**-self.alpha + self.B * d**-self.beta)

    def best_split(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of least loss for a budget, counting 6 FLOPs per parameter and token."""
        share = self.beta / (self.alpha + self.beta)
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        n = ratio * (flops / 6) ** share
        return n, flops / 6 / n


@dataclass(frozen=True)
class Fit:
    """A fitted law, how it was fitted, and the laws fitted to resampled runs."""

    law: Law
    objective: float
    """Mean Huber loss of the log residuals."""
    rows: int
    delta: float
    largest: dict[str, float]
    """Greatest N, D and N x D among the runs, to tell extrapolation."""
    resampled: tuple[Law, ...]
    scatter: float = 0.0
    """Standard deviation of the runs' log residuals: what one more run scatters at least."""
    tied: bool = False

    def intervals(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """Percentile intervals of the five numbers and of the exponent of N in the best split."""
        table = np.array([[*asdict(law).values(), law.beta / (law.alpha + law.beta)] for law in self.resampled])
        return (
            {name: _percentiles(table[:, place], level) for place, name in enumerate((*NAMES, "best_n_exponent"))}
            if len(table)
            else {}
        )

    def predict(self, n: float, d: float, level: float = 0.9) -> tuple[float, float, float]:
        """Loss at (n, d), and its interval: percentiles of the resampled laws, each with a run's own scatter."""
        value = self.law.loss(n, d)
        if not self.resampled:
            return value, value, value
        spread = np.array([law.loss(n, d) for law in self.resampled])
        scatter = np.random.default_rng(0).normal(0, self.scatter, len(spread))
        return (value, *_percentiles(spread * np.exp(scatter), level))

    def as_dict(self) -> dict[str, Any]:
        """The fit as plain JSON."""
        return {
            "kind": "scaling-law",
            "form": "L = E + A / N^alpha + B / D^beta",
            "law": asdict(self.law),
            "objective": self.objective,
            "rows": self.rows,
            "delta": self.delta,
            "largest": self.largest,
            "intervals_90": self.intervals(),
            "scatter": self.scatter,
            "tied": self.tied,
            "resampled": [list(asdict(law).values()) for law in self.resampled],
        }


def fit_from_dict(value: Any, where: str) -> Fit:
    """The fit in a JSON object made by `Fit.as_dict`.

    Raises:
        CauserieError: CAU-4303 when it is something else.
    """
    try:
        if value["kind"] != "scaling-law":
            raise KeyError("kind")
        laws = tuple(Law(*map(float, row)) for row in value["resampled"])
        law = Law(**{name: float(value["law"][name]) for name in NAMES})
        return Fit(
            law, value["objective"], value["rows"], value["delta"], dict(value["largest"]), laws,
            float(value.get("scatter", 0.0)), bool(value.get("tied", False)),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise CauserieError(
            "CAU-4303", f"not a fitted law: {error!r}", where=where, fix="make one with plan fit"
        ) from error


def fit_law(
    n: Floats, d: Floats, loss: Floats, *, delta: float = 1e-3, bootstrap: int = 200, seed: int = 0, tied: bool = False
) -> Fit:
    """Fit the law to runs.

    Args:
        n, d, loss: (R,) parameters, tokens, final losses, all positive.
        delta: where the Huber loss of the log residuals turns from square to straight.
        bootstrap: how often the runs are resampled with replacement for the intervals.
        seed: of the resampling.
        tied: alpha = beta, for few runs.

    Raises:
        CauserieError: CAU-4302 when there are too few runs, none that differ in N or in D, one that is not a positive
            number, or one that stands there twice.
    """
    _check_runs(n, d, loss, MIN_ROWS - tied)
    data = (np.log(n), np.log(d), np.log(loss))
    refined = sorted((_refine(data, start, delta, tied) for start in _starts(*data, STARTS, tied)), key=_second)
    best, objective = refined[0]
    generator = np.random.default_rng(seed_for(seed, "plan", "bootstrap"))
    resampled = []
    for _ in range(bootstrap):
        again = _resample(generator, data)
        tried = [_refine(again, start, delta, tied) for start, _ in refined[:BOOTSTRAP_STARTS]]
        resampled.append(_law(min(tried, key=_second)[0]))
    largest = {"n": float(n.max()), "d": float(d.max()), "nd": float((n * d).max())}
    residuals = _residuals(data, best)[0]
    return Fit(_law(best), objective, len(loss), delta, largest, tuple(resampled), float(residuals.std()), tied)


def _second(item: tuple[Floats, float]) -> float:
    return item[1]


def _check_runs(n: Floats, d: Floats, loss: Floats, least: int) -> None:
    for name, values in (("N", n), ("D", d), ("loss", loss)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            cause, fix = f"{name} of run {bad[0]} is {values[bad[0]]}", "give positive numbers, or leave the run out"
            raise CauserieError("CAU-4302", cause, where=name, fix=fix)
    seen: dict[tuple[float, float], int] = {}
    for row, pair in enumerate(zip(n.tolist(), d.tolist(), strict=True)):
        if pair in seen and loss[seen[pair]] == loss[row]:
            cause = f"runs {seen[pair]} and {row} are the same: N {pair[0]:g}, D {pair[1]:g}, loss {loss[row]:g}"
            raise CauserieError("CAU-4302", cause, where="N, D, loss", fix="leave one of them out")
        seen[pair] = row
    if len(loss) < least or len(set(n)) < 2 or len(set(d)) < 2:
        cause = f"{len(loss)} usable rows with {len(set(n))} sizes and {len(set(d))} token counts"
        raise CauserieError("CAU-4302", cause, where="runs", fix=f"give at least {least} runs that differ in both")


def _resample(generator: np.random.Generator, data: tuple[Floats, Floats, Floats]) -> tuple[Floats, Floats, Floats]:
    """Runs drawn with replacement: again when fewer than three sizes or token counts are among them."""
    for _ in range(100):
        rows = generator.integers(0, len(data[0]), len(data[0]))
        if min(len(set(data[0][rows])), len(set(data[1][rows]))) > 2:
            break
    return data[0][rows], data[1][rows], data[2][rows]


def _law(theta: Floats) -> Law:
    """Parameters as the optimiser sees them (log E, log A, log B, alpha, beta) as a law."""
    return Law(*np.exp(theta[:3]).tolist(), *theta[3:].tolist())


def _starts(log_n: Floats, log_d: Floats, log_loss: Floats, keep: int, tied: bool = False) -> list[Floats]:
    """Variable projection: the best E, A, B >= 0 at each grid point, in relative error; the `keep` best points."""
    loss = np.exp(log_loss)
    found = []
    grid = np.linspace(0.05, 1.2, 46 if tied else 16)
    for alpha, beta in zip(grid, grid, strict=True) if tied else product(grid, repeat=2):
        columns = np.stack([np.ones_like(loss), np.exp(-alpha * log_n), np.exp(-beta * log_d)], axis=1)
        scale = columns.max(axis=0)
        weights, error = _nonnegative(columns / scale / loss[:, None])
        theta = np.log(np.maximum(weights / scale, 1e-6))
        found.append((error, np.array([*theta, alpha, beta])))
    return [theta for _, theta in sorted(found, key=lambda item: item[0])[:keep]]


def _nonnegative(columns: Floats) -> tuple[Floats, float]:
    """Least squares of `columns @ w = 1` with w >= 0: three columns, so every set of non-zero ones is tried."""
    best, least = np.zeros(3), np.inf
    for used in ([0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1], [2]):
        weights = np.zeros(3)
        weights[used] = np.linalg.lstsq(columns[:, used], np.ones(len(columns)), rcond=None)[0]
        error = float(((columns @ weights - 1) ** 2).sum())
        if (weights >= 0).all() and error < least:
            best, least = weights, error
    return best, least


def _residuals(data: tuple[Floats, Floats, Floats], theta: Floats) -> tuple[Floats, Floats]:
    """Log prediction minus log loss (R,), and its derivatives (R, 5)."""
    log_n, log_d, log_loss = data
    terms = np.stack([np.full_like(log_n, theta[0]), theta[1] - theta[3] * log_n, theta[2] - theta[4] * log_d], axis=1)
    top = terms.max(axis=1, keepdims=True)
    parts = np.exp(terms - top)
    total = parts.sum(axis=1, keepdims=True)
    shares = parts / total
    slopes = np.concatenate([shares, -shares[:, 1:2] * log_n[:, None], -shares[:, 2:] * log_d[:, None]], axis=1)
    return (top + np.log(total))[:, 0] - log_loss, slopes


def _huber(residuals: Floats, delta: float) -> float:
    size = np.abs(residuals)
    return float(np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)).mean())


def _refine(
    data: tuple[Floats, Floats, Floats], theta: Floats, delta: float, tied: bool = False
) -> tuple[Floats, float]:
    """Levenberg-Marquardt on reweighted least squares; every accepted step lowers the Huber objective."""
    free = np.eye(5)
    if tied:
        free = np.concatenate([free[:, :3], free[:, 3:].sum(axis=1, keepdims=True)], axis=1)
    residuals, slopes = _residuals(data, theta)
    value, damping = _huber(residuals, delta), 1e-3
    for _ in range(500):
        weights = np.minimum(1.0, delta / np.maximum(np.abs(residuals), 1e-300))
        moved = slopes @ free
        gradient = moved.T @ (weights * residuals)
        curvature = moved.T @ (weights[:, None] * moved)
        step = _solve(curvature + damping * np.diag(np.diag(curvature) + 1e-12), -gradient)
        tried = theta + free @ np.clip(step, -2, 2)
        new_residuals, new_slopes = _residuals(data, tried)
        new_value = _huber(new_residuals, delta)
        if new_value < value:
            gain = (value - new_value) / max(value, 1e-300)
            theta, residuals, slopes, value = tried, new_residuals, new_slopes, new_value
            damping = max(damping / 5, 1e-12)
            if gain < 1e-10:
                break
        else:
            damping *= 4
            if damping > 1e8:
                break
    return theta, value


def _solve(matrix: Floats, right: Floats) -> Floats:
    """Solution of a small symmetric system; the least-squares one where it is singular."""
    try:
        found = np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        found = np.linalg.lstsq(matrix, right, rcond=None)[0]
    return np.asarray(found, dtype=np.float64)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
