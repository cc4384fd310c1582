"""Attention of chunks against its definition, in float64 and without any of its shortcuts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.chunks import BLOCK, attend_chunk
from causerie.model import Transformer

from .tiny import naive_greedy, prompt_of


def by_definition(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    q, k, v = (part.double() for part in (q, k, v))
    share, length, total = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    k, v = (part.repeat_interleave(share, dim=1) for part in (k, v))
    back = torch.arange(total - length, total)[:, None] - torch.arange(total)
    hidden = (back < 0) | (back >= (window or total))
    return (q @ k.transpose(2, 3) * scale).masked_fill(hidden, float("-inf")).softmax(-1) @ v


def draw(length: int, past: int, heads: int, share: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length * 1000 + past)
    sizes = [(1, length, heads * share, 8), (1, past + length, heads, 8), (1, past + length, heads, 8)]
    # as they come from the projections and from the cache: positions before heads in memory
    return [torch.randn(size, generator=generator).to(dtype).transpose(1, 2) for size in sizes]


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(2, 3 * BLOCK + 5),
    past=st.integers(0, 300),
    window=st.none() | st.integers(1, 400),
    heads=st.integers(1, 2),
    share=st.integers(1, 3),
)
def test_a_chunk_is_attended_by_the_definition(
    length: int, past: int, window: int | None, heads: int, share: int
) -> None:
    parts = draw(length, past, heads, share)
    found = attend_chunk(*parts, 0.3, window)
    assert torch.allclose(found.double(), by_definition(*parts, 0.3, window), atol=2e-6)


@pytest.mark.parametrize("window", [None, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
@pytest.mark.parametrize("length", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_the_edges_of_blocks_and_windows(length: int, window: int | None) -> None:
    for past in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3):
        parts = draw(length, past, 1, 2)
        found = attend_chunk(*parts, 0.3, window)
        assert torch.allclose(found.double(), by_definition(*parts, 0.3, window), atol=2e-6), past


def test_bfloat16_is_as_near_as_its_rounding() -> None:
    parts = draw(200, 50, 2, 2, torch.bfloat16)
    error = attend_chunk(*parts, 0.3, 64).double() - by_definition(*parts, 0.3, 64)
    assert error.abs().max() < 0.03


def test_what_is_hidden_has_no_weight_at_all() -> None:
    """Not even where it is huge: a query's answer is bit for bit the one without what comes after it."""
    q, k, v = draw(150, 20, 1, 2)
    whole = attend_chunk(q, k, v, 0.3, None)
    v[:, :, 100:], k[:, :, 100:] = 1e30, 50.0
    assert torch.equal(attend_chunk(q, k, v, 0.3, None)[:, :, :80], whole[:, :, :80])


@pytest.mark.parametrize("budget", [1, 2, 5, 16, 33, 150])
def test_any_cutting_of_a_prompt_gives_the_naive_loops_tokens(model: Transformer, budget: int) -> None:
    """First chunks, later ones beside decodes, in straight and in scattered blocks, windows shorter than a chunk."""
    prompts = [prompt_of(length, seed=length) for length in (3, 60, 131)]
    config = EngineConfig(block_size=4, n_blocks=120, max_batch_tokens=budget, max_running=3)
    done = generate_batch(Engine(model, config), prompts, Sampling(max_tokens=5, temperature=0))
    assert [item.ids for item in done] == [naive_greedy(model, prompt, 5) for prompt in prompts]
