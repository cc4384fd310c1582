"""Properties of spreads: whatever the search proposes can be run, and resources that grow never hurt."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.plan import (
    Layout,
    blueprint,
    check_layout,
    goodput,
    hardware,
    held_bytes,
    search_layouts,
    stage_params,
    state_bytes,
    step_time,
)
from causerie.plan.commands import describe_found, held_rows, shares
from causerie.plan.gap import words
from causerie.plan.search import HEADROOM, Found, candidates

H100 = hardware("h100-80gb")


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["gpt2-124m", "llama3-8b", "mixtral-8x7b", "qwen3-30b-a3b", "gpt3-13b"]),
    devices=st.sampled_from([1, 2, 3, 8, 12, 16, 64]), batch=st.sampled_from([1, 6, 64, 96]),
    seq=st.sampled_from([1024, 8192]),
)  # fmt: skip
def test_every_candidate_is_possible_and_uses_all_devices(name: str, devices: int, batch: int, seq: int) -> None:
    plan = blueprint(name)
    seen = set()
    for layout in candidates(plan, H100, devices, batch, seq, "bf16"):
        assert layout.devices == devices
        assert layout.global_batch == batch
        assert layout.micro_batches * layout.micro_batch * layout.data == batch
        assert layout not in seen
        seen.add(layout)
        refused = None
        try:
            check_layout(plan, layout, H100)
        except CauserieError as error:
            refused = error
        assert refused is None or refused.where == "tensor"  # key heads or an odd MLP: found out by the check


@pytest.mark.parametrize(("name", "devices"), [("llama3-8b", 8), ("gpt3-13b", 16), ("mixtral-8x7b", 32)])
def test_more_devices_or_memory_never_make_the_best_slower(name: str, devices: int) -> None:
    plan = blueprint(name)
    few = search_layouts(plan, H100, devices, global_batch=256, seq_len=4096, keep=1).best[0]
    many = search_layouts(plan, H100, 2 * devices, global_batch=256, seq_len=4096, keep=1).best[0]
    roomy = search_layouts(plan, replace(H100, memory=H100.memory * 2), devices, global_batch=256, seq_len=4096, keep=1)
    assert many.step.seconds < few.step.seconds
    assert roomy.best[0].step.seconds <= few.step.seconds
    assert few.held.total <= H100.memory * HEADROOM


@settings(max_examples=40, deadline=None)
@given(
    data=st.sampled_from([1, 2, 4, 8]), expert=st.sampled_from([1, 2, 4, 8]), tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_state_of_all_devices_is_the_models(data: int, expert: int, tensor: int, pipeline: int) -> None:
    """Fully sharded, equal stages: the devices together hold 16 bytes of every parameter, tables at both ends."""
    if data % expert:
        return
    plan = blueprint("mixtral-8x7b")
    layout = Layout(64, 2048, data, tensor, pipeline, expert=expert, shard="full")
    together = sum(state_bytes(plan, layout)) * layout.devices
    table = plan.shape.vocab_size * plan.shape.n_embd
    both = 2 * table if pipeline == 1 else table * pipeline
    assert together == pytest.approx(16 * (plan.n_params - 2 * table + both), rel=1e-6)
    stage = stage_params(plan, layout)
    assert stage.expert == pytest.approx(plan.expert_params / (pipeline * tensor * expert))


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_larger_micro_batches_hold_more_and_start_fewer_kernels(micro: int) -> None:
    plan = blueprint("llama3-8b")
    base = Layout(64, 4096, data=8, micro_batch=micro, recompute="none")
    larger = replace(base, micro_batch=2 * micro)
    assert held_bytes(plan, larger).activations == pytest.approx(2 * held_bytes(plan, base).activations)
    assert step_time(plan, larger, H100).elementwise < step_time(plan, base, H100).elementwise


def test_twice_the_batch_takes_less_than_twice_the_time() -> None:
    plan = blueprint("gpt3-13b")
    base = Layout(64, 2048, data=8, pipeline=4)
    once, twice = (step_time(plan, replace(base, global_batch=size), H100) for size in (64, 128))
    assert once.seconds < twice.seconds < 2 * once.seconds
    assert twice.mfu > once.mfu
    assert twice.bubble == pytest.approx(once.bubble)


@settings(max_examples=40, deadline=None)
@given(devices=st.integers(1, 100_000), checkpoint=st.floats(0.5, 300), restart=st.floats(0, 1800))
def test_goodput_is_a_share_that_falls_with_devices(devices: int, checkpoint: float, restart: float) -> None:
    here, there = (goodput(n, H100, checkpoint, restart) for n in (devices, 2 * devices))
    assert 0 < there.share <= here.share < 1
    assert there.mtbf_seconds == pytest.approx(here.mtbf_seconds / 2)
    assert there.interval_seconds < here.interval_seconds * 1.001


def test_a_described_layout_is_plain_and_complete() -> None:
    plan, layout = blueprint("llama3-8b"), Layout(64, 4096, data=8, shard="full", recompute="full")
    found = Found(layout, held_bytes(plan, layout), step_time(plan, layout, H100))
    row = describe_found(found, H100)
    assert row["words"] == "data 8; micro-batch 1, recompute full, shard full"
    assert row["fits"] is True
    assert row["memory"]["total"] == pytest.approx(sum(size for _, size in held_rows(found.held)))
    assert sum(shares(found.step).values()) == pytest.approx(1.0)
    assert Layout(8, 512).words().startswith("one device")
    busy = Layout(64, 512, 8, 2, 2, expert=4, interleave=2)
    assert "expert 4" in busy.words()
    assert "2 chunks a stage" in busy.words()


@pytest.mark.parametrize(("factor", "text"), [(4.0, "2 doublings"), (1.0, "0 doublings"), (0.25, "ahead")])
def test_a_gap_in_words(factor: float, text: str) -> None:
    assert text in words(factor)
    assert not math.isnan(factor)


def test_the_planners_megatron_layout_is_near_the_papers() -> None:
    """On Megatron's own 64 A100, what the search finds for GPT-3 is at least as fast as the paper's best (13.75 s)."""
    a100 = hardware("a100-80gb")
    best = search_layouts(blueprint("gpt3-175b"), a100, 64, global_batch=64, seq_len=2048).best[0]
    assert best.step.seconds < 13.75
    assert best.layout.tensor * best.layout.pipeline >= 8 or best.layout.shard == "full"
