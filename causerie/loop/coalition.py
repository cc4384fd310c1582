"""Evidence that does not hang on a few people: what a canary's duels say without any small coalition of its voters."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from causerie.loop.config import CanaryConfig
from causerie.loop.duels import Duels
from causerie.loop.sequential import Floats, evidence_without_some

FEW: Final = 3
"""People left out at least where there are four times as many: a trial's first voters are not yet a crowd."""


def people_left_out(found: Duels, settings: CanaryConfig, duels: int | None = None) -> int:
    """People without whom the first so many duels (all unless given) must convince.

    The share, rounded up; at least a quarter of the voters so far, up to `FEW`.
    """
    if settings.min_people <= 1 or not settings.coalition:
        return 0
    voters = len({user for users in found.voters[:duels] for user in users})
    return max(math.ceil(settings.coalition * voters - 1e-9), min(FEW, voters // 4))


def evidence_of(found: Duels, moments: npt.NDArray[np.int64], settings: CanaryConfig) -> Floats:
    """Natural logarithm of the candidate's evidence without its keenest voters, after each number of duels.

    Args:
        found: the duels in their order.
        moments: numbers of duels, ascending, `(T,)`.
        settings: how large a coalition may be.
    """
    names = {user: place for place, user in enumerate(dict.fromkeys(u for users in found.voters for u in users))}
    won, lost = np.zeros(max(1, len(names))), np.zeros(max(1, len(names)))
    wins, losses, shared, leave = [], [], [], []
    twice = done = 0
    for moment in moments.tolist():
        for outcome, users in zip(found.outcomes[done:moment], found.voters[done:moment], strict=True):
            people = set(users)
            twice += outcome and len(people) == 2
            for user in people:
                (won if outcome else lost)[names[user]] += 1 if outcome else 1 / len(people)
        done = moment
        wins.append(won.copy())
        losses.append(lost.copy())
        shared.append(twice)
        leave.append(people_left_out(found, settings, moment))
    return evidence_without_some(np.array(wins), np.array(losses), np.array(leave), np.array(shared))
