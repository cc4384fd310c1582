"""Live votes as duels between a candidate and its incumbent.

A side-by-side choice between the two is a duel. Thumbs are given to single answers in different conversations: the
candidate's i-th thumb is set against the incumbent's i-th, in the order in which they came; up against down is a win,
down against up a loss, two alike decide nothing. If both are equally liked, a decisive pair is won with probability
one half whatever the rate of thumbs up is (Wald 1947, Sequential Analysis, chapter 6: double dichotomies).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from causerie.store import Store, exposures, signals


@dataclass(frozen=True)
class Duels:
    """What the votes of a canary came to, oldest first."""

    outcomes: tuple[bool, ...]
    """Decisive duels: whether the candidate won."""
    ties: int
    waiting: int
    """Thumbs of one side that still wait for one of the other."""
    people: int
    over_cap: int
    """Votes left out because their user had reached the cap."""
    choices: int
    thumbs: int

    @property
    def wins(self) -> int:
        """Duels that the candidate won."""
        return sum(self.outcomes)

    @property
    def losses(self) -> int:
        """Duels that the incumbent won."""
        return len(self.outcomes) - self.wins


@dataclass(frozen=True)
class LiveVote:
    """A standing vote on answers of the two versions; `outcome` is the candidate's side of it.

    For a choice: True when the candidate was chosen, False when the incumbent was, None for a tie. For a thumb:
    whether it was up, `candidate` telling whose answer it was.
    """

    user: str
    kind: str
    outcome: bool | None
    candidate: bool
    created: float


def duels(votes: Iterable[LiveVote], max_per_user: int) -> Duels:
    """Duels of votes given in the order in which they came.

    Args:
        votes: standing votes.
        max_per_user: a user's votes after this many are left out (the first count, not the newest: a test that is
            looked at all the time must not take evidence back); 0 means no cap.
    """
    given: Counter[str] = Counter()
    queues: tuple[list[bool], list[bool]] = [], []
    outcomes: list[bool] = []
    kinds: Counter[str] = Counter()
    ties = over = 0
    for vote in votes:
        given[vote.user] += 1
        if max_per_user and given[vote.user] > max_per_user:
            over += 1
            continue
        kinds[vote.kind] += 1
        pair = _meet(vote, queues) if vote.kind == "thumb" else (vote.outcome, None)
        if pair is None:
            continue
        first, second = pair
        if vote.kind == "thumb":
            ties += first == second
            outcomes += [] if first == second else [bool(first)]
        else:
            ties += first is None
            outcomes += [] if first is None else [first]
    waiting = len(queues[0]) + len(queues[1])
    return Duels(tuple(outcomes), ties, waiting, len(given), over, kinds["choice"], kinds["thumb"])


def _meet(vote: LiveVote, queues: tuple[list[bool], list[bool]]) -> tuple[bool, bool] | None:
    """Put a thumb in its queue; the (candidate, incumbent) thumbs when one of each is there."""
    queues[0 if vote.candidate else 1].append(bool(vote.outcome))
    if not queues[0] or not queues[1]:
        return None
    return queues[0].pop(0), queues[1].pop(0)


def live_votes(store: Store, name: str, incumbent: int, candidate: int, since: float) -> list[LiveVote]:
    """Standing choices and thumbs on answers that the two versions gave on the page, oldest first.

    A user's first word on an answer counts; thumbs on answers shown side by side do not count beside the choice.

    Args:
        store: the store.
        name: registry name.
        incumbent, candidate: version numbers.
        since: when the canary began; earlier answers do not count.
    """
    shown = _shown(store, name, (incumbent, candidate), since)
    query = select(signals.c.exposure_id, signals.c.user, signals.c.kind, signals.c.value, signals.c.created)
    standing = signals.c.withdrawn.is_(None) & signals.c.kind.in_(("choice", "thumb")) & (signals.c.created >= since)
    rows = store.read(query.where(standing).order_by(signals.c.created, signals.c.id))
    found: list[LiveVote] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        group, number = shown.get(row.exposure_id, (None, None))
        others = [shown[name][1] for name in row.value.get("others", ()) if name in shown]
        subject = (row.user, group or row.exposure_id)
        if number is None or subject in seen or (row.kind == "thumb" and group):
            continue
        if row.kind == "choice" and not _between(number, others, (incumbent, candidate)):
            continue
        seen.add(subject)
        found.append(_vote(row.user, row.kind, row.value, number == candidate, row.created))
    return found


def _shown(store: Store, name: str, numbers: Sequence[int], since: float) -> dict[str, tuple[str | None, int]]:
    """Exposure id → (group, version number) of the two versions' answers."""
    wanted = (exposures.c.model == name) & exposures.c.version.in_(numbers) & (exposures.c.created >= since)
    query = select(exposures.c.id, exposures.c.group_id, exposures.c.version).where(wanted)
    return {row.id: (row.group_id, row.version) for row in store.read(query)}


def _between(number: int, others: Sequence[int], numbers: tuple[int, int]) -> bool:
    return len(others) == 1 and {number, others[0]} == set(numbers)


def _vote(user: str, kind: str, value: dict[str, object], candidate: bool, created: float) -> LiveVote:
    if kind == "thumb":
        return LiveVote(user, kind, bool(value.get("label")), candidate, created)
    chosen = value.get("outcome") == "chosen"
    return LiveVote(user, kind, candidate if chosen else None, candidate, created)
