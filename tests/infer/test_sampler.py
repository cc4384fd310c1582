"""The sampler against the distributions it should draw from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy import stats

from causerie.core import CauserieError
from causerie.infer import Sampling
from causerie.infer.sampler import CANDIDATES, Row, sample, uniform

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -3.0]])


def draws(sampling: Sampling, count: int = 4000, logits: torch.Tensor = LOGITS) -> Counter[int]:
    rows = [Row(sampling, 11, position, {}) for position in range(count)]
    return Counter(sample(logits.expand(count, -1), rows).ids)


def expected(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]


def reference(**settings: float) -> list[float]:
    """The distribution by its definition, one cut after the other, in plain Python."""
    logits = [value / settings.get("temperature", 1.0) for value in LOGITS[0].tolist()]
    weights = expected([2.718281828459045**value for value in logits])
    order = sorted(range(len(weights)), key=lambda index: -weights[index])
    top_k = int(settings.get("top_k", 0)) or len(weights)
    weights = expected([weight if index in order[:top_k] else 0.0 for index, weight in enumerate(weights)])
    kept, mass = set(), 0.0
    for index in order:
        if mass < settings.get("top_p", 1.0):
            kept.add(index)
        mass += weights[index]
    weights = expected([weight if index in kept else 0.0 for index, weight in enumerate(weights)])
    floor = settings.get("min_p", 0.0) * max(weights)
    return expected([weight if weight >= floor else 0.0 for weight in weights])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.8},
        {"min_p": 0.2},
        {"top_k": 4, "top_p": 0.9},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.95, "min_p": 0.1},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(settings: dict[str, Any]) -> None:
    counts = draws(Sampling(**settings))
    wanted = reference(**settings)
    assert set(counts) <= {index for index, weight in enumerate(wanted) if weight > 0}
    possible = [index for index, weight in enumerate(wanted) if weight > 0]
    observed = [counts[index] for index in possible]
    test = stats.chisquare(observed, [wanted[index] * sum(observed) for index in possible])
    assert test.pvalue > 1e-4


def test_a_wide_nucleus_reaches_beyond_the_first_candidates() -> None:
    vocab = CANDIDATES * 10
    counts = draws(Sampling(top_p=0.5), 3000, torch.zeros(1, vocab))
    assert len(counts) > CANDIDATES
    assert len(counts) <= vocab // 2 + 1


def test_a_wide_top_k_is_kept_whole() -> None:
    logits = torch.linspace(0, 0.01, CANDIDATES * 8)[None]
    counts = draws(Sampling(top_k=CANDIDATES * 4), 4000, logits)
    assert min(counts) >= CANDIDATES * 4
    assert len(counts) > CANDIDATES * 2


def test_rows_do_not_disturb_each_other() -> None:
    settings = [
        Sampling(temperature=0),
        Sampling(seed=1),
        Sampling(seed=2, top_k=2),
        Sampling(seed=3, top_p=0.7, temperature=1.3),
        Sampling(seed=4, min_p=0.3, logprobs=True),
        Sampling(seed=5, frequency_penalty=1.0, logit_bias=((4, 3.0),)),
    ]
    rows = [Row(item, item.seed or 0, 9, {0: 2}) for item in settings]
    logits = torch.randn(len(rows), 50, generator=torch.Generator().manual_seed(0)) * 2
    together = sample(logits.clone(), rows)
    alone = [sample(logits[index : index + 1].clone(), [row]) for index, row in enumerate(rows)]
    assert together.ids == [choice.ids[0] for choice in alone]
    assert [value is not None for value in together.log_probs] == [item.logprobs for item in settings]


def test_log_probs_are_of_the_unmodified_distribution() -> None:
    sampling = Sampling(temperature=0.3, top_k=1, logprobs=True, logit_bias=((5, 100.0),), presence_penalty=1.0)
    choice = sample(LOGITS.clone(), [Row(sampling, 0, 0, {0: 1})])
    assert choice.ids == [5]
    assert choice.log_probs == pytest.approx([LOGITS.log_softmax(-1)[0, 5].item()], abs=1e-6)


def test_penalties_lower_what_was_said() -> None:
    counted = {0: 3, 1: 1}
    greedy = Sampling(temperature=0, frequency_penalty=0.5, presence_penalty=0.3)
    # 2.0 - 0.3 - 1.5 = 0.2; 1.0 - 0.3 - 0.5 = 0.2; 0.5 stays
    assert sample(LOGITS.clone(), [Row(greedy, 0, 0, counted)]).ids == [2]
    assert sample(LOGITS.clone(), [Row(Sampling(temperature=0), 0, 0, counted)]).ids == [0]


def test_random_numbers_are_uniform_and_depend_on_both_arguments() -> None:
    values = [uniform(seed, position) for seed in range(-20, 20) for position in range(50)]
    assert len(set(values)) == len(values)
    assert stats.kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 2**63),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", float("inf")),
        ("seed", 2**65),
        ("logit_bias", ((1, float("inf")),)),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(CauserieError, match=field) as caught:
        Sampling(**{field: value})
    assert caught.value.code == "CAU-3102"
