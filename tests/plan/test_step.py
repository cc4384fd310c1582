"""Step times: the eight published Megatron runs, closed forms, invariants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.plan import Layout, blueprint, group_bandwidth, hardware, step_time, training_flops
from causerie.plan.measured import (
    Comparison,
    bloom_times,
    llmfoundry_times,
    megatron_times,
    nemotron_time,
    summary,
    two_cores_times,
)

A100, H100 = hardware("a100-80gb"), hardware("h100-80gb")
GPT3 = blueprint("gpt3-175b")
ONE = Layout(8, 2048, shard="none")


def test_megatrons_eight_iteration_times() -> None:
    """arXiv:2205.05198, table 5: mean error at most 4 %, largest at most 9 %, with one fitted constant."""
    found = summary(megatron_times())
    assert found["rows"] == 8
    assert found["mean"] <= 0.04
    assert found["max"] <= 0.09


def test_the_constant_is_the_best_of_its_neighbours() -> None:
    """`efficiency` is fitted, not chosen: moving it either way makes the mean error larger."""
    mean = summary(megatron_times())["mean"]
    for other in (A100.efficiency - 0.03, A100.efficiency + 0.03):
        assert summary(megatron_times(replace(A100, efficiency=other)))["mean"] > mean


def test_the_h100s_anchor() -> None:
    assert abs(nemotron_time().error) < 0.01


def test_two_cores_as_measured() -> None:
    """Four small models on two quiet cores: one constant carries from 1.8M to 32M parameters."""
    found = summary(two_cores_times())
    assert found["rows"] == 4
    assert found["max"] < 0.08


def test_rows_that_were_never_fitted(pack: Path) -> None:
    """Out of sample: read, predicted, and on the fast side by less than a quarter in the middle."""
    rows, unread = llmfoundry_times(pack / "scaling" / "throughput_llmfoundry.csv")
    assert (len(rows), unread) == (216, 0)
    assert summary(rows)["median"] < 0.25
    rows, left = bloom_times(pack / "scaling" / "throughput_bigscience_tr11.csv")
    assert (len(rows), left) == (134, 5)
    assert summary(rows)["median"] < 0.25


def test_measured_tables_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CauserieError) as caught:
        llmfoundry_times(tmp_path / "none.csv")
    assert caught.value.code == "CAU-4302"


def test_rows_that_contradict_themselves_are_left_out(tmp_path: Path) -> None:
    head = "Nodes,Size,DP,TP,PP,MBS,GBS,Mem,Sec/it,TFLOPs,Notes,line,NHIDDEN,Layers,ZS,NHEADS\n"
    good = "48,181B,4,8,12,4,2048,49GB,123.69,130.34,,1,,,,\n"
    wrong = "48,181B,4,8,12,4,2048,49GB,12.369,130.34,,1,,,,\n"
    failed = "48,184B,16,4,6,2,2048,OOM,x,x,,1,,,,\n"
    (tmp_path / "t.csv").write_text(head + good + wrong + failed)
    rows, left = bloom_times(tmp_path / "t.csv")
    assert (len(rows), left) == (1, 2)
    assert rows[0].measured == 123.69


def test_summary_of_errors() -> None:
    rows = [Comparison("", "", 1.1, 1.0), Comparison("", "", 0.8, 1.0), Comparison("", "", 1.0, 1.0)]
    found = summary(rows)
    assert found["mean"] == pytest.approx(0.1)
    assert found["max"] == pytest.approx(0.2)
    assert found["median"] == pytest.approx(0.1)
    assert found["bias"] == pytest.approx(0.0)


def test_matrices_alone_take_flops_over_reached_peak() -> None:
    """With memory, links and starting free, a step without attention's core is FLOPs over efficiency times peak."""
    free = replace(A100, bandwidth=1e30, link=1e30, network=1e30, launch=0.0, latency=0.0)
    step = step_time(GPT3, replace(ONE, recompute="none"), free)
    flops = 6 * GPT3.active_matrix_params * ONE.tokens
    assert step.matrices == pytest.approx(flops / (free.peak * free.efficiency), rel=1e-6)
    again = step_time(GPT3, replace(ONE, recompute="full"), free)
    body = 2 * (GPT3.active_matrix_params - GPT3.shape.vocab_size * GPT3.shape.n_embd) * ONE.tokens
    assert again.matrices - step.matrices == pytest.approx(body / (free.peak * free.efficiency), rel=1e-6)


def test_the_bubble_is_stages_less_one_over_chunks() -> None:
    base = Layout(64, 2048, pipeline=8, shard="none", recompute="none")
    plain = step_time(GPT3, base, A100)
    chunked = step_time(GPT3, replace(base, interleave=3), A100)
    work = plain.matrices + plain.attention + plain.elementwise
    assert plain.bubble / work == pytest.approx(7 / 64, rel=0.04)  # the output projection waits for nobody
    assert chunked.bubble == pytest.approx(plain.bubble / 3, rel=0.02)


def test_tensor_messages_are_ring_all_reduces() -> None:
    """Four a layer and micro-batch, 2 (t - 1) / t of 2 s b h bytes each."""
    layout = Layout(4, 2048, tensor=8, shard="none", recompute="none", micro_batch=4)
    step = step_time(GPT3, layout, replace(A100, latency=0.0))
    size = 2 * 4 * 2048 * GPT3.shape.n_embd
    assert step.tensor_comm == pytest.approx(96 * 4 * 2 * 7 / 8 * size / (A100.link * A100.link_share))


def test_rings_inside_a_node_use_the_fast_link_and_across_share_the_network() -> None:
    inside, across = A100.link * A100.link_share, A100.network * A100.network_share
    assert group_bandwidth(A100, 8, 1) == inside
    assert group_bandwidth(A100, 16, 1) == min(inside, across * 8)
    assert group_bandwidth(A100, 4, 8) == across
    assert group_bandwidth(A100, 4, 4) == across * 2
    assert group_bandwidth(A100, 2, 64) == across


def test_mfu_counts_model_flops_only() -> None:
    for mode in ("none", "full"):
        step = step_time(GPT3, replace(ONE, recompute=mode), A100)
        flops = training_flops(GPT3, 2048) * ONE.tokens
        assert step.mfu == pytest.approx(flops / step.seconds / A100.peak)
        assert step.tokens_per_second_per_device == pytest.approx(ONE.tokens / step.seconds)


def test_parts_add_up_to_the_step() -> None:
    layout = Layout(1536, 4096, data=8, tensor=8, pipeline=8, interleave=3, expert=1, recompute="full")
    step = step_time(GPT3, layout, H100)
    parts = {k: v for k, v in vars(step).items() if k not in ("seconds", "mfu", "tokens_per_second_per_device")}
    assert sum(parts.values()) == pytest.approx(step.seconds, rel=1e-9)


def test_expert_messages_come_with_expert_devices() -> None:
    plan = blueprint("moe-1t")
    base = Layout(64, 4096, data=64)
    alone = step_time(plan, base, H100)
    near, far = (step_time(plan, replace(base, expert=n), H100) for n in (8, 64))
    assert alone.expert_comm == 0 < near.expert_comm < far.expert_comm


def test_long_rows_are_spread_over_context() -> None:
    plan = blueprint("llama3-405b")
    base = Layout(8, 131_072, tensor=8, recompute="full")
    spread = step_time(plan, replace(base, context=16), H100)
    alone = step_time(plan, base, H100)
    assert alone.seconds / 16 < spread.seconds < alone.seconds / 12


def test_fp8_makes_matrices_faster_but_not_attention() -> None:
    base = Layout(8, 8192, data=8, shard="full", recompute="none")
    slow, fast = (step_time(blueprint("llama3-8b"), replace(base, precision=p), H100) for p in ("bf16", "fp8"))
    assert fast.attention == slow.attention
    assert slow.matrices / 2 < fast.matrices < slow.matrices


def test_sharded_weights_cost_messages_on_a_thin_network() -> None:
    thin = replace(H100, network=1e8)
    layout = Layout(64, 2048, data=64, shard="full", recompute="full")
    step, good = step_time(GPT3, layout, thin), step_time(GPT3, layout, H100)
    moved = 3 * 2 * GPT3.n_params * 63 / 64 / group_bandwidth(thin, 64, 1)
    assert step.data_comm == pytest.approx(moved, rel=0.25)
    assert good.data_comm < step.data_comm / 50


@settings(max_examples=60, deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.sampled_from([1, 2, 4, 8]), data=st.sampled_from([1, 4]),
    mode=st.sampled_from(["none", "selective", "full"]), name=st.sampled_from(["gpt3-175b", "mixtral-8x7b"]),
    speed=st.floats(1.1, 4.0),
)  # fmt: skip
def test_faster_parts_never_make_a_step_slower(
    tensor: int, pipeline: int, data: int, mode: str, name: str, speed: float
) -> None:
    layout = Layout(64, 2048, data, tensor, pipeline, recompute=mode)  # type: ignore[arg-type]
    plan = blueprint(name)
    step = step_time(plan, layout, H100)
    assert 0 < step.mfu < H100.efficiency
    for field in ("peak", "bandwidth", "link", "network"):
        other = step_time(plan, layout, replace(H100, **{field: getattr(H100, field) * speed}))
        assert other.seconds <= step.seconds * (1 + 1e-9)
