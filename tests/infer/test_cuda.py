"""The paged attention of CUDA devices, planned for real and computed by a plain stand-in for the kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.cuda import GRAPH_SIZES, paged_attention, plan_paged
from causerie.model import Transformer

from .tiny import naive_greedy, prompt_of


def stand_in(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: None,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor,
    block_table: Tensor,
) -> Tensor:
    """What `varlen_attn` is documented to compute, sequence by sequence."""
    out = torch.empty_like(query)
    share = query.shape[1] // key.shape[2]
    assert enable_gqa == (share > 1)
    for row in range(len(seqused_k)):
        first, last, used = int(cu_seq_q[row]), int(cu_seq_q[row + 1]), int(seqused_k[row])
        assert last - first <= max_q
        assert used <= max_k
        keys, values = (pool[block_table[row].long()].flatten(0, 1)[:used] for pool in (key, value))
        keys, values = (part.repeat_interleave(share, dim=1).transpose(0, 1) for part in (keys, values))
        scores = query[first:last].transpose(0, 1) @ keys.transpose(1, 2) * scale
        back = torch.arange(used - (last - first), used)[:, None] - torch.arange(used)[None]
        hidden = back < 0 if window_size[0] < 0 else (back < 0) | (back > window_size[0])
        out[first:last] = (scores.masked_fill(hidden, float("-inf")).softmax(-1) @ values).transpose(0, 1)
    return out


def test_paged_steps_give_the_naive_loops_tokens(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(cache: Any, work: Any, windows: Any, *, scale: float) -> Any:
        return plan_paged(cache, work, windows, scale, stand_in)

    monkeypatch.setattr("causerie.infer.runner.plan_attend", plan)
    prompts = [prompt_of(length, seed=length) for length in (1, 7, 16, 33)]
    config = EngineConfig(block_size=4, n_blocks=200, max_batch_tokens=16)
    done = generate_batch(Engine(model, config), prompts, Sampling(max_tokens=8, temperature=0))
    assert [item.ids for item in done] == [naive_greedy(model, prompt, 8) for prompt in prompts]


def test_the_installed_torch_reads_block_tables() -> None:
    assert paged_attention() is not None
    assert list(GRAPH_SIZES) == sorted(set(GRAPH_SIZES))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_steps_give_the_naive_loops_tokens(model: Transformer) -> None:
    gpu = model.to("cuda", torch.bfloat16)
    done = generate_batch(Engine(gpu, EngineConfig(block_size=256)), [prompt_of(9)] * 3, Sampling(max_tokens=8))
    assert all(len(item.ids) == 8 for item in done)
