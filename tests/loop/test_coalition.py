"""Evidence that no small coalition of voters can make: against brute force over coalitions, and by simulation."""

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
from causerie.loop import CanaryConfig, Duels, LiveVote, decide, duels, log_evidence
from causerie.loop.coalition import EQUAL_SHARES, LARGEST_VOICE, Voices, voices_of
from causerie.loop.sequential import log_likelihood_steps, log_mixture

CROWD = CanaryConfig(min_people=5)
Row = tuple[bool, tuple[str, ...]]
DUEL = st.tuples(st.booleans(), st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=2).map(tuple))
ROWS = st.lists(DUEL, min_size=1, max_size=60)


def found_of(rows: list[Row]) -> Duels:
    """Duels from outcomes and who decided them."""
    people = len({user for _, users in rows for user in users})
    voters = tuple(users for _, users in rows)
    return Duels(tuple(won for won, _ in rows), 0, 0, people, 0, len(rows), 0, 0, voters)


def outside(rows: list[Row], coalition: tuple[str, ...]) -> float:
    """The evidence of the duels that count and that nobody of a coalition took part in, written out anew.

    Which duels count is the rule's business and settled by the past of everybody; the rest is plain addition.
    """
    won, lost = log_likelihood_steps()
    said: dict[str, np.ndarray] = {}
    total = np.zeros(len(won))
    for outcome, users in rows:
        people = set(users)
        for user in people:
            said.setdefault(user, np.zeros(len(won)))
        largest = math.log(20) * max(LARGEST_VOICE, EQUAL_SHARES / len(said))
        counts = np.ones(len(won), bool)
        for user in people:
            counts &= said[user] + won <= largest
        step = (won if outcome else lost) * counts
        for user in people:
            said[user] = said[user] + (step if outcome else step / len(people))
        if not people & set(coalition):
            total += step
    return float(log_mixture(total[None])[0])


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from([0.02, 0.2, 0.35]))
def test_it_lies_below_the_evidence_outside_every_coalition_of_its_size(rows: list[Row], share: float) -> None:
    voices = voices_of(found_of(rows), replace(CROWD, coalition=share))
    people = sorted({user for _, users in rows for user in users})
    for size in range(min(voices.left_out, len(people)) + 1):
        for coalition in itertools.combinations(people, size):
            assert voices.evidence() <= outside(rows, coalition) + 1e-9


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 2))
def test_each_further_member_adds_one_voice_at_most(rows: list[Row], more: int) -> None:
    """α · exp(m · largest voice) rests on this: m people beyond those left out add m voices, whatever they do."""
    voices = voices_of(found_of(rows), CROWD)
    people = sorted({user for _, users in rows for user in users})
    caps = [math.log(20) * max(LARGEST_VOICE, EQUAL_SHARES / n) for n in range(1, len(people) + 1)]
    for coalition in itertools.combinations(people, min(voices.left_out + more, len(people))):
        assert voices.evidence() <= outside(rows, coalition) + more * max(caps) + 1e-9


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_where_everybody_is_trusted_it_is_the_evidence(rows: list[Row]) -> None:
    wins = sum(won for won, _ in rows)
    for trusting in (replace(CROWD, coalition=0.0), replace(CROWD, min_people=1)):
        voices = voices_of(found_of(rows), trusting)
        assert voices.evidence() == pytest.approx(log_evidence(wins, len(rows) - wins), abs=1e-9)
        assert (voices.left_out, voices.largest) == (0, math.inf)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40), st.integers(0, 7), st.integers(0, 7))
def test_the_next_vote_raises_the_mean_evidence_by_nothing(
    rows: list[tuple[bool, int]], voter: int, other: int
) -> None:
    """A supermartingale where the next vote is a coin: the mean of both outcomes is not above what it was.

    Checked without the leaving out, whose maximum over people may grow: the process under it is what must not.
    """
    users = (f"u{voter}",) if voter == other else (f"u{voter}", f"u{other}")
    said = [(won, (f"u{number}",)) for won, number in rows]

    def whole(extra: list[Row]) -> float:
        return math.exp(float(log_mixture(voices_of(found_of([*said, *extra]), CROWD)._total[None])[0]))

    assert (whole([(True, users)]) + whole([(False, users)])) / 2 <= whole([]) * (1 + 1e-9)


@pytest.mark.parametrize(("people", "left_out"), [(1, 1), (5, 1), (43, 1), (50, 1), (51, 2), (100, 2), (101, 3)])
def test_the_share_is_rounded_up(people: int, left_out: int) -> None:
    voices = voices_of(found_of([(True, (f"u{number}",)) for number in range(people)]), CROWD)
    assert voices.left_out == left_out
    assert voices.largest == pytest.approx(math.log(20) * max(0.2, 3 / people))


def test_one_person_gives_a_fifth_of_what_is_needed_at_most() -> None:
    """A thousand votes of one of forty say no more than their first few."""
    rows: list[Row] = [(bool(number % 2), (f"u{number % 40}",)) for number in range(80)]
    voices = voices_of(found_of(rows), replace(CROWD, coalition=1e-12))
    before = voices._total.copy()
    for _ in range(1000):
        voices.hear(True, ("fan",))
    assert float((voices._total - before).max()) <= math.log(20) / 5 + 1e-9


def crowd(rng: np.random.Generator, votes: int, fans: int, rate: float = 0.5) -> list[LiveVote]:
    """40 honest people who prefer the candidate at some rate, and fans who always vote for it, in random order."""
    said = [LiveVote(f"u{rng.integers(40)}", "choice", bool(rng.random() < rate), True, 0.0) for _ in range(votes)]
    said += [LiveVote(f"fan{number % fans}", "choice", True, True, 0.0) for number in range(40 * fans)]
    return [said[place] for place in rng.permutation(len(said))]


@pytest.mark.parametrize(("fans", "rate"), [(1, 0.05), (3, 0.05 * math.exp(2 * math.log(20) / 5))])
def test_fans_win_no_more_often_than_promised(fans: int, rate: float) -> None:
    """60 rounds with an equally good candidate: counted like everybody, three fans win nearly always."""
    wrong = {0.0: 0, CROWD.coalition: 0}
    for seed in range(60):
        found = duels(crowd(np.random.default_rng(seed), 800, fans), 200, 5)
        for share in wrong:
            wrong[share] += decide(found, replace(CROWD, coalition=share)).status == "promoted"
    assert wrong[CROWD.coalition] <= stats.binom.ppf(0.999, 60, rate)
    assert wrong[0.0] > (20 if fans == 3 else wrong[CROWD.coalition])


def test_a_better_candidate_is_still_found() -> None:
    won = sum(
        decide(duels(crowd(np.random.default_rng(seed), 1000, 0, 0.6), 200, 5), CROWD).status == "promoted"
        for seed in range(20)
    )
    assert won >= 18


def test_the_reason_says_that_it_hangs_on_a_few() -> None:
    rows: list[Row] = [(True, ("fan",))] * 60 + [(bool(number % 2), (f"u{number % 10}",)) for number in range(40)]
    decision = decide(found_of(rows), CROWD)
    assert decision.status == "running"
    assert "not without the 1 of 11 people who spoke most for it" in decision.why
    assert decision.figures["evidence"] > 20 > decision.figures["evidence_without_keenest"]
    assert (decision.figures["left_out"], decision.figures["missing"]) == (1, None)


def test_how_many_more_votes_the_others_would_take() -> None:
    """All votes would do, those without the keenest nearly: what is missing follows from these."""
    rows: list[Row] = [(number % 4 != 0, (f"u{number % 9}",)) for number in range(42)]
    figures = decide(found_of(rows), CROWD).figures
    assert figures["evidence"] > 20 > figures["evidence_without_keenest"] > 1
    grown = len(rows) + figures["missing"]
    assert math.log(figures["evidence_without_keenest"]) * grown / len(rows) == pytest.approx(math.log(20), rel=0.1)


def test_harm_is_believed_at_once() -> None:
    """What only takes the incumbent back needs no second thought: one person's losses count in full."""
    rows: list[Row] = [(False, ("critic",))] * 30 + [(bool(number % 2), (f"u{number % 10}",)) for number in range(20)]
    assert decide(found_of(rows), CROWD).status == "rolled_back"


def test_decided_at_the_moment_when_the_others_suffice() -> None:
    """The first moment counts, as with everybody: what comes after changes nothing."""
    two = replace(CROWD, min_people=2)
    rows: list[Row] = [(True, (f"u{number % 2}",)) for number in range(24)]
    voices, enough = Voices(two), []
    for won, users in rows:
        voices.hear(won, users)
        enough.append(voices.evidence() >= math.log(20))
    first = enough.index(True) + 1
    assert first > 10 > next(n for n in range(24) if log_evidence(n, 0) >= math.log(20))
    assert decide(found_of(rows[: first - 1]), two).status == "running"
    assert decide(found_of(rows[:first]), two).status == "promoted"
    late = decide(found_of([*rows[:first], *[(False, ("late",))] * 100]), two)
    assert (late.status, late.figures["decided_after"]) == ("promoted", first)


def test_neither_of_two_decides_alone() -> None:
    for fan in ("u0", "u1"):
        rows: list[Row] = [(user == fan, (user,)) for _ in range(40) for user in ("u0", "u1")]
        assert decide(found_of(rows), replace(CROWD, min_people=2)).status == "running"


@pytest.mark.parametrize("coalition", [-0.1, 0.5, 1.0])
def test_shares_that_cannot_be(coalition: float) -> None:
    with pytest.raises(CauserieError, match="CAU-5106") as refused:
        CanaryConfig(coalition=coalition).check()
    assert refused.value.where == "coalition"
