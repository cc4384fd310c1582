"""Evidence without any small coalition of voters: against brute force over all coalitions, and by simulation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from causerie.core import CauserieError
from causerie.loop import CanaryConfig, Duels, LiveVote, decide, duels, log_evidence, log_evidence_path
from causerie.loop.coalition import evidence_of, people_left_out
from causerie.loop.sequential import evidence_without_some

CROWD = CanaryConfig(min_people=5, coalition=0.05)
COUNTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6)


def found_of(rows: list[tuple[bool, tuple[str, ...]]]) -> Duels:
    """Duels from outcomes and who decided them."""
    people = len({user for _, users in rows for user in users})
    voters = tuple(users for _, users in rows)
    return Duels(tuple(won for won, _ in rows), 0, 0, people, 0, len(rows), 0, 0, voters)


def without(rows: list[tuple[bool, tuple[str, ...]]], coalition: tuple[str, ...]) -> float:
    """The evidence of the duels that nobody of a coalition took part in."""
    kept = [won for won, users in rows if not set(users) & set(coalition)]
    return log_evidence(sum(kept), len(kept) - sum(kept))


@settings(max_examples=40, deadline=None)
@given(COUNTS)
def test_with_nobody_left_out_it_is_the_evidence(people: list[tuple[int, int]]) -> None:
    wins, losses = np.array([[w for w, _ in people]]), np.array([[lost for _, lost in people]])
    plain = log_evidence_path(wins.sum(1), losses.sum(1))
    assert evidence_without_some(wins, losses, [0]) == pytest.approx(plain, rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(1, 3))
def test_it_bounds_the_evidence_without_every_coalition(people: list[tuple[int, int]], count: int) -> None:
    wins, losses = np.array([[w for w, _ in people]]), np.array([[lost for _, lost in people]])
    bound = float(evidence_without_some(wins, losses, [count])[0])
    for size in range(count + 1):
        for coalition in itertools.combinations(range(len(people)), min(size, len(people))):
            others = [row for place, row in enumerate(people) if place not in coalition]
            rest = log_evidence(sum(w for w, _ in others), sum(lost for _, lost in others))
            assert bound <= rest + 1e-9


DUEL = st.tuples(st.booleans(), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=2).map(tuple))


@settings(max_examples=40, deadline=None)
@given(st.lists(DUEL, min_size=1, max_size=40))
def test_thumbs_of_two_people_are_bounded_too(rows: list[tuple[bool, tuple[str, ...]]]) -> None:
    """A duel of two thumbs goes when either person is left out; the bound still lies below what is left."""
    found = found_of(rows)
    for share in (0.2, 0.4):
        asked = replace(CROWD, coalition=share, min_people=2)
        count = people_left_out(found, asked)
        bound = float(evidence_of(found, np.array([len(rows)]), asked)[0])
        for coalition in itertools.combinations("abcdef", count):
            assert bound <= without(rows, coalition) + 1e-9


def test_moments_are_those_of_the_duels_so_far() -> None:
    rng = np.random.default_rng(0)
    rows = [(bool(rng.random() < 0.7), (f"u{rng.integers(30)}",)) for _ in range(200)]
    moments = np.array([10, 50, 51, 200])
    together = evidence_of(found_of(rows), moments, CROWD)
    alone = [evidence_of(found_of(rows[:moment]), np.array([moment]), CROWD)[0] for moment in moments]
    assert together == pytest.approx(alone)


@pytest.mark.parametrize(("people", "left_out"), [(1, 1), (5, 1), (8, 2), (12, 3), (43, 3), (100, 5), (101, 6)])
def test_the_share_is_rounded_up_and_first_voters_are_no_crowd(people: int, left_out: int) -> None:
    found = found_of([(True, (f"u{number}",)) for number in range(people)])
    assert people_left_out(found, CROWD) == left_out
    assert people_left_out(found, replace(CROWD, coalition=0.0)) == 0
    assert people_left_out(found, replace(CROWD, min_people=1)) == 0


def crowd(rng: np.random.Generator, votes: int, fans: int, rate: float = 0.5) -> list[LiveVote]:
    """40 honest people who prefer the candidate at some rate, and fans who always vote for it, in random order."""
    said = [LiveVote(f"u{rng.integers(40)}", "choice", bool(rng.random() < rate), True, 0.0) for _ in range(votes)]
    said += [LiveVote(f"fan{number % fans}", "choice", True, True, 0.0) for number in range(40 * fans)]
    return [said[place] for place in rng.permutation(len(said))]


def test_three_fans_of_forty_three_no_longer_decide() -> None:
    """60 rounds with an equally good candidate: counted like everybody the fans win, left out they hardly do."""
    wrong = {0.0: 0, 0.05: 0, 0.1: 0}
    for seed in range(60):
        found = duels(crowd(np.random.default_rng(seed), 800, 3), 200, 5)
        for share in wrong:
            wrong[share] += decide(found, replace(CROWD, coalition=share)).status == "promoted"
    assert wrong[0.0] > 20
    assert wrong[0.1] <= wrong[0.05] <= stats.binom.ppf(0.999, 60, 0.05)


def test_a_better_candidate_is_still_found() -> None:
    won = sum(
        decide(duels(crowd(np.random.default_rng(seed), 1000, 0, 0.6), 200, 5), CROWD).status == "promoted"
        for seed in range(20)
    )
    assert won >= 18


def test_the_reason_says_that_it_hangs_on_a_few() -> None:
    rows = [(True, ("fan",))] * 60 + [(bool(number % 2), (f"u{number % 10}",)) for number in range(40)]
    decision = decide(found_of(rows), CROWD)
    assert decision.status == "running"
    assert "not without the 2 of 11 people who spoke most for it" in decision.why
    assert decision.figures["evidence"] > 20 > decision.figures["evidence_without_keenest"]
    assert decision.figures["left_out"] == 2


def test_harm_is_believed_at_once() -> None:
    """What only takes the incumbent back needs no second thought: one person's losses count in full."""
    rows = [(False, ("critic",))] * 30 + [(bool(number % 2), (f"u{number % 10}",)) for number in range(20)]
    assert decide(found_of(rows), CROWD).status == "rolled_back"


def test_decided_at_the_moment_when_the_others_suffice() -> None:
    """The first moment counts, as with everybody: what comes after changes nothing."""
    two = replace(CROWD, min_people=2)
    rows = [(True, (f"u{number % 2}",)) for number in range(24)]
    moments = np.arange(1, len(rows) + 1)
    enough = evidence_of(found_of(rows), moments, two) >= math.log(20)
    first = int(moments[enough][0])
    assert first > 10 > int(moments[log_evidence_path(moments, 0 * moments) >= math.log(20)][0])
    assert decide(found_of(rows[: first - 1]), two).status == "running"
    assert decide(found_of(rows[:first]), two).status == "promoted"
    assert decide(found_of([*rows[:first], *[(False, ("late",))] * 100]), two).status == "promoted"


@pytest.mark.parametrize("coalition", [-0.1, 0.5, 1.0])
def test_shares_that_cannot_be(coalition: float) -> None:
    with pytest.raises(CauserieError, match="CAU-5106") as refused:
        CanaryConfig(coalition=coalition).check()
    assert refused.value.where == "coalition"


def test_counts_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        evidence_without_some([[-1]], [[0]], [0])
