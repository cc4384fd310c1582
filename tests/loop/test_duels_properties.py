"""From votes to duels: what must hold whatever people send and in whichever order, by generated votes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.loop import CanaryConfig, Duels, LiveVote, decide, duels
from causerie.loop.duels import ALLOWANCE

USERS = "abcdef"
choice = st.builds(
    LiveVote,
    st.sampled_from(USERS),
    st.just("choice"),
    st.sampled_from([True, False, None]),
    st.just(True),
    st.just(0.0),
)
thumb = st.builds(LiveVote, st.sampled_from(USERS), st.just("thumb"), st.booleans(), st.booleans(), st.just(0.0))
CHOICES = st.lists(choice, max_size=60)
VOTES = st.lists(st.one_of(choice, thumb), max_size=60)


@settings(max_examples=100, deadline=None)
@given(VOTES, st.integers(0, 8), st.integers(1, 4))
def test_every_vote_is_somewhere(votes: list[LiveVote], most: int, people: int) -> None:
    """Counted as a duel or a tie, waiting for a thumb of the other side or for other people, or over the cap."""
    found = duels(votes, most, people)
    counted = found.choices + found.thumbs
    assert counted + found.in_line + found.over_cap == len(votes)
    pairs = (found.thumbs - found.waiting) / 2
    assert len(found.outcomes) + found.ties == found.choices + pairs
    assert len(found.voters) == len(found.outcomes)
    given_by = Counter(vote.user for vote in votes)
    assert found.over_cap == sum(max(0, n - most) for n in given_by.values()) * bool(most)


@settings(max_examples=100, deadline=None)
@given(VOTES, st.integers(0, 60), st.integers(0, 8), st.integers(1, 3))
def test_what_was_decided_is_never_taken_back(votes: list[LiveVote], until: int, most: int, people: int) -> None:
    """The duels of the votes so far are the beginning of the duels of all: looking at any time is the same test."""
    early, late = duels(votes[:until], most, people), duels(votes, most, people)
    assert late.outcomes[: len(early.outcomes)] == early.outcomes
    assert late.voters[: len(early.voters)] == early.voters


@settings(max_examples=100, deadline=None)
@given(VOTES, st.integers(0, 8), st.integers(1, 3))
def test_who_counts_does_not_hang_on_what_they_say(votes: list[LiveVote], most: int, people: int) -> None:
    """The mirrored world has the mirrored duels: selection by opinion would be no fair test."""
    mirrored = [
        replace(vote, outcome=None if vote.outcome is None else not vote.outcome)
        if vote.kind == "choice"
        else replace(vote, outcome=not vote.outcome)
        for vote in votes
    ]
    ours, theirs = duels(votes, most, people), duels(mirrored, most, people)
    assert (ours.ties, ours.waiting, ours.in_line, ours.over_cap) == (
        theirs.ties, theirs.waiting, theirs.in_line, theirs.over_cap,
    )  # fmt: skip
    assert ours.voters == theirs.voters
    assert ours.outcomes == tuple(not won for won in theirs.outcomes)


@settings(max_examples=100, deadline=None)
@given(CHOICES)
def test_nobody_is_ahead_of_the_others_by_more_than_is_allowed(votes: list[LiveVote]) -> None:
    decisive = [replace(vote, outcome=bool(vote.outcome)) for vote in votes]
    found = duels(decisive, 0, 2)
    counted: Counter[str] = Counter()
    for (user,) in found.voters:
        others = [n for name, n in counted.items() if name != user]
        assert counted[user] < ALLOWANCE + (sum(others) / len(others) if others else 0)
        counted[user] += 1


@settings(max_examples=60, deadline=None)
@given(CHOICES)
def test_a_household_of_one_counts_every_vote(votes: list[LiveVote]) -> None:
    alone = [replace(vote, user="ada") for vote in votes]
    found = duels(alone, 0, 1)
    assert (len(found.outcomes) + found.ties, found.in_line) == (len(votes), 0)
    assert found.outcomes == tuple(bool(vote.outcome) for vote in votes if vote.outcome is not None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(USERS)), max_size=80), st.lists(st.booleans(), max_size=40))
def test_a_decision_stands_whatever_follows(said: list[tuple[bool, str]], after: list[bool]) -> None:
    def found_of(rows: list[tuple[bool, str]]) -> Duels:
        names = {user for _, user in rows}
        return Duels(
            tuple(won for won, _ in rows), 0, 0, len(names), 0, len(rows), 0, 0, tuple((user,) for _, user in rows)
        )

    config = CanaryConfig(min_people=1)
    first = decide(found_of(said), config)
    later = decide(found_of([*said, *((won, "late") for won in after)]), config)
    if first.status != "running":
        assert (later.status, later.figures["decided_after"]) == (first.status, first.figures["decided_after"])
        assert later.why == first.why
