"""Intervals and tests against scipy, closed forms and known tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from causerie.core import CauserieError
from causerie.evals.statistics import (
    bootstrap_ratio,
    cluster_sums,
    holm,
    paired_difference,
    permutation_p,
    wilson,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (613, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(successes: int, trials: int, confidence: float) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    got = wilson(successes, trials, confidence)
    assert got.low == pytest.approx(expected.low, abs=1e-12)
    assert got.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(CauserieError) as caught:
        wilson(successes, trials)
    assert caught.value.code == "CAU-4208"


def test_bootstrap_of_a_mean_agrees_with_scipy_and_the_normal_interval() -> None:
    sample = np.random.default_rng(1).normal(3, 2, size=400)
    got = bootstrap_ratio(sample, np.ones(400), seed=5)
    reference = stats.bootstrap(
        (sample,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(2)
    ).confidence_interval
    half = 1.96 * sample.std() / 20
    assert got.value == pytest.approx(sample.mean())
    assert got.low == pytest.approx(reference.low, abs=0.1 * half)
    assert got.high == pytest.approx(sample.mean() + half, abs=0.1 * half)


def test_bootstrap_is_a_function_of_the_seed() -> None:
    values, weights = np.arange(9.0), np.ones(9)
    assert bootstrap_ratio(values, weights, seed=1) == bootstrap_ratio(values, weights, seed=1)
    assert bootstrap_ratio(values, weights, seed=1) != bootstrap_ratio(values, weights, seed=2)


def test_ratio_weights_items_by_their_denominators() -> None:
    got = bootstrap_ratio(np.array([2.0, 30.0]), np.array([1.0, 9.0]), seed=0)
    assert got.value == 3.2  # 32 nats over 10 tokens, not the mean of 2 and 3.33


def test_one_cluster_allows_no_interval() -> None:
    got = bootstrap_ratio(np.array([2.0]), np.array([4.0]), seed=0)
    assert (got.value, got.low, got.high) == (0.5, None, None)


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(CauserieError, match="nothing to average"):
        bootstrap_ratio(np.array([]), np.array([]), seed=0)


def test_clusters_widen_the_interval_of_repeated_items() -> None:
    values = np.tile(np.array([0.0, 1.0] * 20), 10)  # every prompt answered ten times with the same result
    names = [str(i) for i in range(40)] * 10
    ones = np.ones(len(values))
    alone = bootstrap_ratio(values, ones, seed=0)
    together = bootstrap_ratio(cluster_sums(values, names), cluster_sums(ones, names), seed=0)
    assert together.value == alone.value == 0.5
    assert together.n == 40
    width_alone, width_together = alone.high - alone.low, together.high - together.low
    assert width_together / width_alone == pytest.approx(np.sqrt(10), rel=0.15)


def test_permutation_p_equals_scipy_exact() -> None:
    first = np.array([3.1, 2.0, 5.5, 4.0, 6.1, 2.2, 3.9, 7.0])
    second = np.array([2.9, 2.5, 4.0, 3.1, 5.0, 2.0, 3.0, 5.5])
    ones = np.ones(8)
    expected = stats.permutation_test(
        (first, second), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", vectorized=True
    ).pvalue
    assert permutation_p((first, ones), (second, ones), seed=0) == pytest.approx(expected)


def test_permutation_p_of_paired_rates_is_mcnemars_exact_test() -> None:
    first = np.array([1.0] * 30 + [0] * 12 + [1] * 20)
    second = np.array([0.0] * 30 + [1] * 12 + [1] * 20)
    ones = np.ones(len(first))
    exact = stats.binomtest(30, 42).pvalue
    assert permutation_p((first, ones), (second, ones), seed=0) == pytest.approx(exact, abs=0.006)


def test_a_model_does_not_differ_from_itself() -> None:
    sample = (np.random.default_rng(0).random(50), np.ones(50))
    got = paired_difference(sample, sample, seed=0)
    assert (got.value, got.low, got.high, got.p) == (0, 0, 0, 1)


def test_paired_interval_is_the_interval_of_the_differences() -> None:
    generator = np.random.default_rng(4)
    noise = generator.normal(size=300)
    first, second, ones = noise + generator.normal(0.2, 0.1, 300), noise, np.ones(300)
    got = paired_difference((first, ones), (second, ones), seed=1)
    spread = 1.96 * (first - second).std() / np.sqrt(300)
    assert got.low == pytest.approx((first - second).mean() - spread, abs=0.1 * spread)
    assert got.high == pytest.approx((first - second).mean() + spread, abs=0.1 * spread)
    assert got.p < 0.001


def test_swapping_the_models_negates_the_difference() -> None:
    generator = np.random.default_rng(4)
    first, second, ones = generator.random(30), generator.random(30), np.ones(30)
    forward = paired_difference((first, ones), (second, ones), seed=3)
    backward = paired_difference((second, ones), (first, ones), seed=3)
    assert forward.value == -backward.value
    assert forward.low == pytest.approx(-backward.high)
    assert forward.p == backward.p


def test_coverage_of_the_paired_interval_is_near_its_level() -> None:
    """200 samples of 60 with a known mean: the 95 % interval should hold it about 190 times."""
    generator = np.random.default_rng(11)
    ones = np.ones(60)
    held = 0
    for seed in range(200):
        drawn = generator.normal(0.3, 1, size=60)
        got = bootstrap_ratio(drawn, ones, seed=seed)
        held += got.low <= 0.3 <= got.high
    assert 180 <= held <= 199


def test_holm_on_a_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]
