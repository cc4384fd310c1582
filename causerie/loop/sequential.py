"""A sequential test that may be looked at after every vote: is the candidate preferred, or the incumbent?

Each decisive vote is a duel that the candidate wins with probability p. The evidence against "p ≤ 1/2" is a mixture of
likelihood ratios over alternatives p > 1/2, a nonnegative supermartingale under every p ≤ 1/2 that starts at 1; by
Ville's inequality it ever reaches 1/α with probability at most α, however often and whenever one looks, so stopping
there errs in at most a share α of the rounds (mixture SPRT: Robbins 1970, Ann. Math. Statist. 41; always-valid
inference: Johari, Koomen, Pekelis & Walsh 2022, Oper. Res. 70(3), arXiv:1512.04922; confidence sequences: Howard,
Ramdas, McAuliffe & Sekhon 2021, Ann. Statist. 49(2), arXiv:1810.08240). Evidence of harm is the same with the sides
swapped. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALTERNATIVES: Final = 48
"""Number of alternatives in the mixture."""


def _alternatives() -> Floats:
    """Win rates from 0.51 to 0.99, evenly on a log scale of their distance to one half: half of them below 0.57."""
    return 0.5 + np.geomspace(0.01, 0.49, ALTERNATIVES)


def log_evidence(wins: int, losses: int) -> float:
    """Natural logarithm of the evidence that the side with `wins` is preferred, after so many duels.

    log Σⱼ (1/J) (2θⱼ)^wins (2(1 − θⱼ))^losses, θⱼ > 1/2; 0 without duels.

    Raises:
        ValueError: for negative counts.
    """
    return float(log_evidence_path(np.array([wins]), np.array([losses]))[0])


def log_evidence_path(wins: npt.ArrayLike, losses: npt.ArrayLike) -> Floats:
    """`log_evidence` at many moments at once: `(T,) int` running counts → `(T,) float64`."""
    won, lost = np.asarray(wins, float), np.asarray(losses, float)
    if np.any(won < 0) or np.any(lost < 0):
        raise ValueError("counts of duels cannot be negative")
    gain, loss = log_likelihood_steps()
    return log_mixture(won[:, None] * gain + lost[:, None] * loss)


def log_likelihood_steps() -> tuple[Floats, Floats]:
    """What a won and what a lost duel add to each alternative's log-likelihood: log 2θⱼ and log 2(1 − θⱼ); `(J,)`."""
    theta = _alternatives()
    return np.log(2 * theta), np.log(2 * (1 - theta))


def log_mixture(terms: Floats) -> Floats:
    """Logarithm of the evenly weighted mixture of the alternatives' ratios: `(T, J)` logarithms → `(T,)`."""
    top = terms.max(axis=1)
    return np.asarray(top + np.log(np.mean(np.exp(terms - top[:, None]), axis=1)))


def confidence_sequence(wins: int, losses: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the win rate that holds at all times together with this confidence.

    The rates p for which a Beta(1/2, 1/2) mixture of likelihood ratios against p stays below 1/(1 − confidence);
    (0, 1) without duels.
    """
    if wins + losses == 0:
        return 0.0, 1.0
    top = math.log(1 / (1 - confidence))
    mixture = _log_beta(wins + 0.5, losses + 0.5) - _log_beta(0.5, 0.5)

    def excluded(rate: float) -> bool:
        return mixture - wins * math.log(rate) - losses * math.log1p(-rate) >= top

    middle = min(max(wins / (wins + losses), 1e-9), 1 - 1e-9)
    low = 0.0 if wins == 0 else _edge(excluded, 1e-12, middle)
    high = 1.0 if losses == 0 else _edge(excluded, 1 - 1e-12, middle)
    return low, high


def duels_left(wins: int, losses: int, alpha: float) -> int | None:
    """About how many more duels decide for the winning side if they go on as so far; None when nothing leans so."""
    duels = wins + losses
    if duels == 0 or wins <= losses:
        return None
    rate = (wins + 0.5) / (duels + 1)
    goal = math.log(1 / alpha)
    for total in _growing(duels):
        if log_evidence(round(rate * total), total - round(rate * total)) >= goal:
            return max(0, total - duels)
    return None


def _growing(start: int) -> Sequence[int]:
    return sorted({max(1, round(start * 1.05**step)) for step in range(200) if start * 1.05**step < 1e6} | {start})


def _edge(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    """The border between an excluded and an included rate, by bisection."""
    for _ in range(60):
        middle = (outside + inside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
