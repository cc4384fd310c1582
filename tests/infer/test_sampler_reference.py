"""The sampler against transformers' logits processors, and its shortcuts through a large vocabulary against plain ones.

One uniform number decides each draw, so a grid of them tells the whole distribution that a row is drawn from.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from causerie.infer import Sampling
from causerie.infer.sampler import CHUNK, Row, invert, largest, likeliest, log_probs_of, sample

GRID = 4096


def logits_of(vocab: int, seed: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(1, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def shares(monkeypatch: pytest.MonkeyPatch, logits: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    """How much of the interval [0, 1) draws each token: (V,)."""
    monkeypatch.setattr("causerie.infer.sampler.uniform", lambda seed, position: (position + 0.5) / GRID)
    rows = [Row(sampling, 0, place, {}, seen) for place in range(GRID)]
    return torch.tensor(sample(logits.expand(GRID, -1).clone(), rows).ids).bincount(minlength=logits.shape[1]) / GRID


def by_transformers(logits: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return steps(torch.tensor([seen]), logits.clone()).softmax(-1)[0]


@pytest.mark.parametrize("vocab", [40, 5000, 64 * CHUNK + 1])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.05},
        {"repetition_penalty": 1.7},
        {"top_k": 30, "top_p": 0.7, "temperature": 1.4},
        {"top_p": 0.95, "min_p": 0.02, "temperature": 0.8, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_every_cut_is_transformers(monkeypatch: pytest.MonkeyPatch, vocab: int, given: dict[str, Any]) -> None:
    """Within the step of the grid; what transformers rules out is never drawn."""
    sampling, seen, logits = Sampling(**given), [1, 3, 3, 17], logits_of(vocab, seed=vocab)
    found, wanted = shares(monkeypatch, logits, sampling, seen), by_transformers(logits, sampling, seen)
    assert (found[wanted == 0] == 0).all()
    assert (found - wanted).abs().max() < 1.5 / GRID


@settings(deadline=None, max_examples=50)
@given(vocab=st.integers(1, 9000), rows=st.integers(1, 3), count=st.integers(1, 300), ties=st.booleans())
def test_the_largest_are_found_without_sorting(vocab: int, rows: int, count: int, ties: bool) -> None:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab))
    if ties:
        logits = logits.round()
    values, indices = likeliest(logits, count)
    assert torch.equal(values, logits.topk(min(count, vocab)).values)
    assert torch.equal(logits.gather(1, indices), values)
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    assert torch.equal(logits.gather(1, largest(logits)[:, None]), logits.amax(dim=-1, keepdim=True))


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 9000), point=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 50))
def test_inversion_finds_the_first_index_past_the_point(width: int, point: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(1, width, generator=generator) * (torch.rand(1, width, generator=generator) > 0.5)
    if not weights.any():
        weights[0, width // 2] = 1.0
    index = int(invert(weights, torch.tensor([point], dtype=torch.float64)))
    running = weights[0].double().cumsum(0)
    goal, slack = point * float(running[-1]), float(running[-1]) * 1e-9
    assert weights[0, index] > 0
    assert float(running[index]) >= goal - slack
    assert float(running[index] - weights[0, index]) <= goal + slack


@pytest.mark.parametrize("n_top", [0, 1, 5])
def test_log_probs_are_the_log_softmax(n_top: int) -> None:
    logits = logits_of(700, seed=2).repeat(3, 1) * torch.tensor([[1.0], [0.1], [30.0]])
    scores, top = log_probs_of(logits, [4, 5, 6], n_top)
    wanted = logits.log_softmax(-1)
    assert torch.allclose(torch.tensor(scores), wanted[[0, 1, 2], [4, 5, 6]], atol=1e-5)
    for row, some in enumerate(top):
        assert [token for token, _ in some] == wanted[row].topk(n_top).indices.tolist()
        assert all(abs(value - float(wanted[row, token])) < 1e-5 for token, value in some)
