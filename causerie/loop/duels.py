"""Live votes as duels between a candidate and its incumbent.

A side-by-side choice between the two is a duel. Thumbs are given to single answers in different conversations: the
candidate's i-th thumb is set against the incumbent's i-th, in the order in which they came; up against down is a win,
down against up a loss, two alike decide nothing. If both are equally liked, a decisive pair is won with probability
one half whatever the rate of thumbs up is (Wald 1947, Sequential Analysis, chapter 6: double dichotomies).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

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
    in_line: int = 0
    """Votes of users who are ahead of the others' average; they count when the others have caught up."""
    voters: tuple[tuple[str, ...], ...] = ()
    """By duel, who decided it: one person by a choice, two (or one twice) by thumbs that met."""

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


ALLOWANCE: Final = 1
"""Votes by which a user may be ahead of the average of the others."""


def duels(votes: Iterable[LiveVote], max_per_user: int, min_people: int = 1) -> Duels:
    """Duels of votes given in the order in which they came.

    Nobody outvotes the rest by diligence: a user's vote counts only while that user is at most `ALLOWANCE` votes ahead
    of the others' average; earlier votes wait in line and count when the others have caught up. The rule looks at
    numbers of votes only, never at what they say, so the evidence stays a supermartingale.

    Args:
        votes: standing votes.
        max_per_user: a user's votes after this many are left out (the first count, not the newest: a test that is
            looked at all the time must not take evidence back); 0 means no cap.
        min_people: people without whom nothing is decided; where one is enough, the only voter need not wait.
    """
    tally = _Tally(max_per_user, alone=min_people <= 1)
    for vote in votes:
        tally.take(vote)
    waiting = len(tally.queues[0]) + len(tally.queues[1])
    return Duels(
        tuple(tally.outcomes), tally.ties, waiting, len(tally.counted), tally.over,
        tally.kinds["choice"], tally.kinds["thumb"], sum(map(len, tally.lines.values())), tuple(tally.voters),
    )  # fmt: skip


class _Tally:
    """Counts votes as they become countable."""

    def __init__(self, max_per_user: int, alone: bool) -> None:
        self.most, self.alone = max_per_user, alone
        self.given: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.lines: dict[str, deque[LiveVote]] = {}
        self.queues: tuple[deque[LiveVote], deque[LiveVote]] = deque(), deque()
        self.outcomes: list[bool] = []
        self.voters: list[tuple[str, ...]] = []
        self.kinds: Counter[str] = Counter()
        self.total = self.ties = self.over = 0

    def take(self, vote: LiveVote) -> None:
        self.given[vote.user] += 1
        if self.most and self.given[vote.user] > self.most:
            self.over += 1
            return
        self.lines.setdefault(vote.user, deque()).append(vote)
        while (user := next((name for name in self.lines if self._may(name)), None)) is not None:
            self._count(self.lines[user].popleft())
            if not self.lines[user]:
                del self.lines[user]

    def _may(self, user: str) -> bool:
        own = self.counted.get(user, 0)
        people = len(self.counted) - (own > 0)
        if people == 0:
            return self.alone or own < ALLOWANCE
        return own < ALLOWANCE + (self.total - own) / people

    def _count(self, vote: LiveVote) -> None:
        self.counted[vote.user] += 1
        self.total += 1
        self.kinds[vote.kind] += 1
        if vote.kind != "thumb":
            return self._settle(vote.outcome, vote.user)
        self.queues[0 if vote.candidate else 1].append(vote)
        if all(self.queues):
            ours, theirs = (queue.popleft() for queue in self.queues)
            self._settle(None if ours.outcome == theirs.outcome else bool(ours.outcome), ours.user, theirs.user)

    def _settle(self, outcome: bool | None, *users: str) -> None:
        if outcome is None:
            self.ties += 1
            return
        self.outcomes.append(outcome)
        self.voters.append(users)


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
