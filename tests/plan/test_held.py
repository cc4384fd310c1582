"""Bytes that a device holds: the papers' formulas, and invariants of spreading."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.plan import Layout, activation_bytes, blueprint, held_bytes, layer_bytes, stage_params, state_bytes
from causerie.plan.measured import megatron_activations, summary

GPT3 = blueprint("gpt3-175b")
CLASSIC = Layout(64, 2048, tensor=8, kernels="classic", sequence=False, shard="none", recompute="none")


def test_activations_equal_the_published_ones() -> None:
    """Figure 1 of arXiv:2205.05198: eight memories, without recomputation and selective with sequence parallelism."""
    found = summary(megatron_activations())
    assert found["rows"] == 8
    assert found["mean"] <= 0.021
    assert found["max"] <= 0.001


@pytest.mark.parametrize("tensor", [1, 2, 8])
@pytest.mark.parametrize("micro", [1, 4])
def test_a_layer_follows_korthikantis_table(tensor: int, micro: int) -> None:
    """Table 2 of the paper, in bytes of a layer: s b h (10 + 24/t + 5 a s / (h t)) and its variants."""
    s, h, a = 2048, GPT3.shape.n_embd, GPT3.shape.n_head
    sbh = s * micro * h
    base = replace(CLASSIC, tensor=tensor, micro_batch=micro)
    assert layer_bytes(GPT3, base) == pytest.approx(sbh * (10 + 24 / tensor + 5 * a * s / (h * tensor)))
    together = replace(base, sequence=True)
    assert layer_bytes(GPT3, together) == pytest.approx(sbh * (34 / tensor + 5 * a * s / (h * tensor)))
    assert layer_bytes(GPT3, replace(base, recompute="selective")) == pytest.approx(sbh * (10 + 24 / tensor))
    assert layer_bytes(GPT3, replace(together, recompute="selective")) == pytest.approx(sbh * 34 / tensor)
    assert layer_bytes(GPT3, replace(base, recompute="full")) == pytest.approx(sbh * 2)
    assert layer_bytes(GPT3, replace(together, recompute="full")) == pytest.approx(sbh * 2 / tensor)


def test_state_of_mixed_precision_is_18_bytes_a_parameter() -> None:
    """Megatron's 22B on eight devices: 45.56 GiB of weights, gradients and optimiser in the paper's figure 1."""
    plan = blueprint("megatron-22b")
    body = 12 * plan.shape.n_layer * plan.shape.n_embd**2
    assert 18 * body / 8 / 1024**3 == pytest.approx(45.5625, rel=1e-6)
    assert sum(state_bytes(plan, replace(CLASSIC, global_batch=4))) == pytest.approx(18 * plan.n_params / 8, rel=0.01)


def test_sharding_divides_what_it_says() -> None:
    base = Layout(64, 2048, data=16, shard="none")
    none, optimizer, full = (state_bytes(GPT3, replace(base, shard=kind)) for kind in ("none", "optimizer", "full"))
    assert none[0] == optimizer[0] == 2 * GPT3.n_params
    assert optimizer[2] == none[2] / 16
    assert sum(full) == pytest.approx(16 * GPT3.n_params / 16)
    assert held_bytes(GPT3, replace(base, shard="full")).gathered > 0


def test_experts_are_spread_over_expert_devices() -> None:
    plan = blueprint("moe-1t")
    base = Layout(64, 4096, data=16)
    alone, spread = stage_params(plan, base), stage_params(plan, replace(base, expert=16))
    assert alone.expert == plan.expert_params
    assert spread.expert == plan.expert_params / 16
    assert spread.dense == alone.dense
    whole = sum(state_bytes(plan, replace(base, shard="full")))
    assert sum(state_bytes(plan, replace(base, shard="full", expert=16))) == pytest.approx(whole)


def test_a_pipelines_first_stage_keeps_its_micro_batches() -> None:
    base = replace(CLASSIC, pipeline=8, global_batch=64)
    one = activation_bytes(GPT3, replace(CLASSIC, global_batch=64))
    assert activation_bytes(GPT3, base) == pytest.approx(one)  # 1/8 of the layers, 8 micro-batches under way
    assert activation_bytes(GPT3, replace(base, interleave=3)) == pytest.approx(one * (1 + 7 / 24))
    assert activation_bytes(GPT3, replace(base, global_batch=4)) == pytest.approx(one / 2)


def test_uneven_stages_count_the_fullest() -> None:
    plan = blueprint("bloom-176b")  # 70 layers
    assert stage_params(plan, Layout(64, 2048, pipeline=12)).layers == 6
    assert stage_params(plan, Layout(64, 2048, pipeline=70)).layers == 1


@settings(max_examples=60, deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.sampled_from([1, 2, 4, 8]), data=st.sampled_from([1, 2, 8]),
    micro=st.sampled_from([1, 2]), mode=st.sampled_from(["none", "selective", "full"]),
    shard=st.sampled_from(["none", "optimizer", "full"]), kernels=st.sampled_from(["fused", "classic"]),
)  # fmt: skip
def test_spreading_and_recomputing_never_cost_memory(
    tensor: int, pipeline: int, data: int, micro: int, mode: str, shard: str, kernels: str
) -> None:
    layout = Layout(
        64, 2048, data, tensor, pipeline, micro_batch=micro, recompute=mode, shard=shard, kernels=kernels,  # type: ignore[arg-type]
    )  # fmt: skip
    held = held_bytes(GPT3, layout)
    assert all(value >= 0 for value in vars(held).values())
    assert held.total == pytest.approx(sum(vars(held).values()))
    if data > 1:
        fewer = held_bytes(GPT3, replace(layout, shard="none"))
        assert held.optimizer <= fewer.optimizer
    kept = [layer_bytes(GPT3, layout, recompute=kind) for kind in ("full", "selective", "none")]
    assert kept == sorted(kept)
    if tensor < 8:
        assert layer_bytes(GPT3, replace(layout, tensor=2 * tensor)) < layer_bytes(GPT3, layout)
