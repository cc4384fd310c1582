"""Evidence that does not hang on a few people: a canary's duels, heard so that no small coalition of voters decides.

Two rules. Nobody's voice counts for more than a share of the evidence that is needed: once a person's duels have spoken
so much for the candidate, their further ones are not counted. And what is left must suffice without the people who
speak most for it. The first costs little where many people vote and bounds what each further member of a coalition can
add; the second makes the promised error rate hold whatever any `left_out` people do.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from causerie.loop.config import CanaryConfig
from causerie.loop.duels import Duels
from causerie.loop.sequential import Floats, log_likelihood_steps, log_mixture

LARGEST_VOICE: Final = 0.2
"""Share of the needed (logarithmic) evidence that one person may give, where there are many voters."""

EQUAL_SHARES: Final = 3.0
"""Where there are few, so many times an equal share."""


class Voices:
    """Listens to duels one after the other; `evidence` is what they say without the keenest voters.

    For each alternative win rate θ the process is a sum of log-likelihood steps, of which those of a person are skipped
    while they could take that person's sum over the largest voice: what is skipped depends on the past alone, so the
    process of the people outside any fixed coalition is a supermartingale where those do not prefer the candidate. The
    sums of the `left_out` people who speak most for θ are taken off, which is at least what any coalition of that size
    has added. Hence the evidence ever reaches 1/α with probability α at most whatever `left_out` people vote, and with
    α · exp(m · largest voice) at most whatever m more people vote (Ville's inequality).
    """

    def __init__(self, settings: CanaryConfig) -> None:
        self.settings = settings
        self.needed = math.log(1 / settings.alpha)
        self.trusting = settings.min_people <= 1 or not settings.coalition
        self._won, self._lost = log_likelihood_steps()
        self._place: dict[str, int] = {}
        self._said = np.zeros((16, len(self._won)))
        self._total = np.zeros(len(self._won))

    @property
    def left_out(self) -> int:
        """People without whom the duels so far must convince: the coalition's share of the voters, rounded up."""
        return 0 if self.trusting else math.ceil(self.settings.coalition * len(self._place) - 1e-9)

    @property
    def largest(self) -> float:
        """What one person may add at most, in nats; infinite where everybody is trusted."""
        if self.trusting or not self._place:
            return math.inf
        return self.needed * max(LARGEST_VOICE, EQUAL_SHARES / len(self._place))

    def hear(self, candidate_won: bool, users: tuple[str, ...]) -> None:
        """A decisive duel, decided by one person or by the thumbs of two.

        A duel of two people counts as a win of both and as half a loss of each, so that the sums of any coalition are
        at least what its duels added.
        """
        rows = sorted({self._place.setdefault(user, len(self._place)) for user in users})
        if len(self._place) > len(self._said):
            self._said = np.concatenate([self._said, np.zeros_like(self._said)])
        room = (self._said[rows] + self._won <= self.largest).all(axis=0)
        step = np.where(room, self._won if candidate_won else self._lost, 0.0)
        self._total += step
        self._said[rows] += step if candidate_won else step / len(rows)

    def evidence(self) -> float:
        """Natural logarithm of the evidence for the candidate without its keenest voters; 0 without duels."""
        terms, count = self._total, min(self.left_out, len(self._place))
        if count:
            keenest: Floats = -np.partition(-self._said[: len(self._place)], count - 1, axis=0)[:count]
            terms = terms - np.maximum(keenest, 0.0).sum(axis=0)
        return float(log_mixture(terms[None])[0])


def voices_of(found: Duels, settings: CanaryConfig) -> Voices:
    """All duels of a canary, heard."""
    voices = Voices(settings)
    for outcome, users in zip(found.outcomes, found.voters, strict=True):
        voices.hear(outcome, users)
    return voices
