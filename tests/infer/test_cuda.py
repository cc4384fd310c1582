"""The paged attention of CUDA devices, planned for real and computed by a plain stand-in for the kernel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.attend import KeyValueCache
from causerie.infer.cuda import GRAPH_SIZES, CapturedDecode, paged_attention, plan_paged
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


def captured_engine(model: Transformer, monkeypatch: pytest.MonkeyPatch, budget: int) -> tuple[Engine, CapturedDecode]:
    """An engine with captured decode steps, where to replay a graph is to compute the step anew."""
    engine = Engine(model, EngineConfig(block_size=4, n_blocks=200, max_batch_tokens=budget, max_running=16))
    runner, shape = engine.runner, model.shape
    size = (shape.n_layer, engine.n_blocks + 1, 4, shape.n_kv_head, shape.head_dim)
    runner.cache = KeyValueCache(*size, runner.dtype, runner.device)
    monkeypatch.setattr("causerie.infer.cuda.paged_attention", lambda: stand_in)
    most_blocks = -(-engine.room // 4)
    captured = CapturedDecode(model, runner.cache, runner._windows, shape.scale, most_blocks)

    def capture(count: int) -> None:
        hidden = captured._run(count).clone()
        captured.graphs[count] = SimpleNamespace(replay=lambda: hidden.copy_(captured._run(count))), hidden  # type: ignore[assignment]

    monkeypatch.setattr(captured, "_capture", capture)
    runner._captured = captured
    return engine, captured


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_padded_steps_give_the_naive_loops_tokens(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Batches between the captured sizes are padded; the padding neither reads nor writes what is somebody's."""
    engine, captured = captured_engine(model, monkeypatch, 400)
    prompts = [prompt_of(3 + 7 * index, seed=index) for index in range(count)]
    done = generate_batch(engine, prompts, Sampling(max_tokens=6, temperature=0))
    assert [item.ids for item in done] == [naive_greedy(model, prompt, 6) for prompt in prompts]
    assert next(size for size in GRAPH_SIZES if size >= count) in captured.graphs
    assert set(captured.graphs) <= set(GRAPH_SIZES)
    assert captured.spare_slot == engine.n_blocks * 4  # beyond what the pool hands out


def test_only_decode_steps_are_replayed(qwen: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, captured = captured_engine(qwen, monkeypatch, 16)
    replayed: list[int] = []
    monkeypatch.setattr(
        type(captured), "__call__", lambda self, work, inputs: replayed.append(len(work)) or self._run(1)
    )
    engine.add("long", prompt_of(40), Sampling(max_tokens=3, temperature=0))
    for _ in range(3):  # chunks of 16, 16 and 8
        engine.step()
    assert not replayed
    engine.step()
    assert replayed == [1]


def test_the_installed_torch_reads_block_tables() -> None:
    assert paged_attention() is not None
    assert list(GRAPH_SIZES) == sorted(set(GRAPH_SIZES))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_steps_give_the_naive_loops_tokens(model: Transformer) -> None:
    gpu = model.to("cuda", torch.bfloat16)
    done = generate_batch(Engine(gpu, EngineConfig(block_size=256)), [prompt_of(9)] * 3, Sampling(max_tokens=8))
    assert all(len(item.ids) == 8 for item in done)
