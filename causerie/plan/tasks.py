"""From loss to a task: Err(L) = eps - k exp(-gamma L), Gadre et al. (arXiv:2403.08540), equation 5.

Variable projection: for each gamma of a grid eps and k are linear; the best gamma is then refined. `eps` is the error
of chance, to which the curve bends as the loss grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError, seed_for

Floats = NDArray[np.float64]

LEAST: Final = 4
GRID: Final = np.geomspace(0.02, 20, 241)


@dataclass(frozen=True)
class TaskFit:
    """A fitted curve from loss to a task's error, and those of resampled runs."""

    name: str
    eps: float
    k: float
    gamma: float
    rows: int
    resampled: tuple[tuple[float, float, float], ...] = ()

    def error(self, loss: float) -> float:
        """Error, 0 to 1, at a loss."""
        return float(self.eps - self.k * np.exp(-self.gamma * loss))

    def predict(self, loss: float, level: float = 0.9) -> tuple[float, float, float]:
        """Error at a loss with its percentile interval."""
        value = self.error(loss)
        if not self.resampled:
            return value, value, value
        values = [eps - k * np.exp(-gamma * loss) for eps, k, gamma in self.resampled]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return value, float(low), float(high)

    def as_dict(self) -> dict[str, Any]:
        """The curve as plain JSON."""
        return {
            "kind": "task-curve", "form": "error = eps - k exp(-gamma loss)", "name": self.name, "eps": self.eps,
            "k": self.k, "gamma": self.gamma, "rows": self.rows, "resampled": [list(row) for row in self.resampled],
        }  # fmt: skip


def task_from_dict(value: Any, where: str) -> TaskFit:
    """The curve in a JSON object made by `TaskFit.as_dict`.

    Raises:
        CauserieError: CAU-4303 when it is something else.
    """
    try:
        if value["kind"] != "task-curve":
            raise KeyError("kind")
        rows = tuple((float(a), float(b), float(c)) for a, b, c in value["resampled"])
        return TaskFit(
            value["name"], float(value["eps"]), float(value["k"]), float(value["gamma"]), value["rows"], rows
        )
    except (KeyError, TypeError, ValueError) as error:
        fix = "make one with plan task"
        raise CauserieError("CAU-4303", f"not a task curve: {error!r}", where=where, fix=fix) from error


def fit_task(loss: Floats, error: Floats, *, name: str = "task", bootstrap: int = 200, seed: int = 0) -> TaskFit:
    """Fit the curve to runs.

    Args:
        loss, error: (R,) losses, and errors of the task from 0 to 1.

    Raises:
        CauserieError: CAU-4302 when there are too few runs, or an error is outside 0 to 1.
    """
    if len(loss) < LEAST or len(set(loss.tolist())) < LEAST:
        fix = f"give at least {LEAST} runs with different losses"
        raise CauserieError("CAU-4302", f"{len(loss)} runs", where="loss", fix=fix)
    if not (np.isfinite(loss) & (loss > 0)).all():
        raise CauserieError("CAU-4302", "a loss is not a positive number", where="loss", fix="leave that run out")
    if not ((error >= 0) & (error <= 1)).all():
        cause, fix = "an error is outside 0 to 1", "give errors as shares: 1 - accuracy"
        raise CauserieError("CAU-4302", cause, where="error", fix=fix)
    best = _best(loss, error)
    generator, found = np.random.default_rng(seed_for(seed, "plan", "tasks")), []
    for _ in range(bootstrap):
        rows = generator.integers(0, len(loss), len(loss))
        if len(set(loss[rows].tolist())) > 2:
            found.append(_best(loss[rows], error[rows]))
    return TaskFit(name, *best, len(loss), tuple(found))


def _best(loss: Floats, error: Floats) -> tuple[float, float, float]:
    """(eps, k, gamma) of least squares with k >= 0 and eps at most 1."""
    solved = [_linear(loss, error, gamma) for gamma in GRID]
    place = int(np.argmin([item[0] for item in solved]))
    low, high = GRID[max(0, place - 1)], GRID[min(len(GRID) - 1, place + 1)]
    fine = [(_linear(loss, error, gamma), gamma) for gamma in np.geomspace(low, high, 41)]
    (_, eps, k), gamma = min(fine, key=lambda item: item[0][0])
    return eps, k, float(gamma)


def _linear(loss: Floats, error: Floats, gamma: float) -> tuple[float, float, float]:
    """Squared error, eps and k for a gamma."""
    curve = np.exp(-gamma * (loss - loss.min()))
    shift = curve - curve.mean()
    slope = -float(shift @ (error - error.mean())) / max(float(shift @ shift), 1e-300)
    k = max(0.0, slope)
    eps = float(error.mean() + k * curve.mean())
    if eps > 1.0:
        eps, k = 1.0, max(0.0, float(curve @ (1 - error)) / float(curve @ curve))
    left = eps - k * curve - error
    return float(left @ left), eps, k * float(np.exp(gamma * loss.min()))
