"""The sequential test against closed forms, scipy, and its promise by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from causerie.loop import confidence_sequence, log_evidence, log_evidence_path
from causerie.loop.sequential import duels_left

COUNTS = st.integers(0, 400)


def test_no_vote_no_evidence() -> None:
    assert log_evidence(0, 0) == 0.0
    assert confidence_sequence(0, 0) == (0.0, 1.0)


@given(COUNTS, COUNTS)
def test_it_is_a_supermartingale(wins: int, losses: int) -> None:
    """The next vote's expected evidence is exactly today's at p = 1/2, and not more below."""
    now = math.exp(log_evidence(wins, losses))
    won, lost = math.exp(log_evidence(wins + 1, losses)), math.exp(log_evidence(wins, losses + 1))
    assert 0.5 * won + 0.5 * lost == pytest.approx(now, rel=1e-9)
    assert 0.4 * won + 0.6 * lost <= now * (1 + 1e-9)


def test_against_scipys_likelihoods() -> None:
    theta = 0.5 + np.geomspace(0.01, 0.49, 48)
    ratio = stats.binom.pmf(60, 100, theta).mean() / stats.binom.pmf(60, 100, 0.5)
    assert log_evidence(60, 40) == pytest.approx(math.log(ratio), rel=1e-9)


def test_it_errs_no_more_often_than_promised() -> None:
    """1,000 rounds of 1,000 looks each at equally good versions: at most 5 % ever reach 20."""
    rng = np.random.default_rng(0)
    wins = np.cumsum(rng.random((1000, 1000)) < 0.5, axis=1)
    looks = np.arange(1, 1001)
    crossed = sum(bool(np.any(log_evidence_path(row, looks - row) >= math.log(20))) for row in wins)
    assert crossed <= stats.binom.ppf(0.999, 1000, 0.05)
    assert crossed > 0


def test_the_confidence_sequence_covers_at_all_times() -> None:
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(200):
        wins = np.cumsum(rng.random(300) < 0.6)
        inside = [
            low <= 0.6 <= high
            for n in range(5, 300, 5)
            for low, high in [confidence_sequence(int(wins[n - 1]), n - int(wins[n - 1]))]
        ]
        missed += not all(inside)
    assert missed <= stats.binom.ppf(0.999, 200, 0.05)


@given(COUNTS, COUNTS)
def test_the_interval_holds_the_share_and_is_symmetric(wins: int, losses: int) -> None:
    low, high = confidence_sequence(wins, losses)
    assert 0 <= low <= high <= 1
    if wins + losses:
        assert low <= wins / (wins + losses) <= high
        mirrored = confidence_sequence(losses, wins)
        assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-6)


def test_how_many_more() -> None:
    assert duels_left(0, 0, 0.05) is None
    assert duels_left(5, 5, 0.05) is None
    assert duels_left(40, 0, 0.05) == 0
    few, many = duels_left(14, 6, 0.05), duels_left(11, 9, 0.05)
    assert few is not None
    assert many is not None
    assert 0 < few < many


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        log_evidence(-1, 2)
