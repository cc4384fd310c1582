"""Dry runs: counted bytes and messages equal the closed forms; bad layouts are refused before torch is asked."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch.distributed as dist

from causerie.core import CauserieError
from causerie.plan import DryrunConfig, Layout, blueprint, find_model, plan_dryrun, stage_params, state_bytes
from causerie.plan.dryrun import Messages, expected_messages, expected_state, sharded_sizes

SMALL = DryrunConfig("depth:4", data=2, tensor=2, seq_len=64, micro_batches=2)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, tensor=1, data=3),
        replace(SMALL, data=1, micro_batch=2),
        replace(SMALL, pipeline=2, stage=0, micro_batches=3),
        replace(SMALL, pipeline=2, stage=1, micro_batches=3),
        replace(SMALL, model="depth:8", pipeline=4, stage=2, micro_batches=4, data=4),
        replace(SMALL, model="depth:8", pipeline=4, stage=1, micro_batches=1, data=4),
    ],
    ids=lambda config: f"{config.data}x{config.tensor}x{config.pipeline}-{config.stage}",
)
def test_what_is_counted_equals_the_closed_forms(config: DryrunConfig) -> None:
    found = plan_dryrun(config)
    assert found["state_bytes"] == found["expected"]["state_bytes"]
    assert found["messages"] == found["expected"]["messages"]
    assert found["ranks"] == config.data * config.tensor * config.pipeline
    assert found["peak_bytes"] > found["state_bytes"] / 2
    assert not dist.is_initialized()


def test_half_a_trillion_parameters_on_512_ranks() -> None:
    """Two layers of MAI-1's reading, FSDP2 over 64 and tensor over 8: every byte as planned."""
    found = plan_dryrun(DryrunConfig("mai-1-500b", data=64, tensor=8, layers=2, micro_batches=1, seq_len=4096))
    plan = blueprint("mai-1-500b")
    assert found["ranks"] == 512
    assert found["parameters"] > 9e9
    layers = replace(plan, shape=replace(plan.shape, n_layer=2))
    sharded = sum(state_bytes(layers, Layout(64, 4096, data=64, tensor=8, shard="full")))
    assert found["state_bytes"] == pytest.approx(sharded, rel=0.01)


def test_the_closed_forms_by_hand() -> None:
    """One block, two ranks of data: each number worked out."""
    plan = find_model("depth:1")
    config = DryrunConfig("depth:1", data=2, tensor=1, micro_batches=3, micro_batch=2, seq_len=10)
    shape = plan.shape
    d, f, v = shape.n_embd, shape.ffn_dim, shape.vocab_size
    block = 2 * d * (shape.n_head + shape.n_kv_head) * shape.head_dim + 3 * d * f + 2 * d + 2 * shape.head_dim
    root = 2 * v * d + d
    messages = expected_messages(plan, config, 1)
    assert messages["all_gather data"] == Messages(3 * 3, 3 * 2 * (2 * block + root))
    assert messages["reduce_scatter data"] == Messages(3 * 2, 3 * 4 * (block + root))
    assert set(messages) == {"all_gather data", "reduce_scatter data"}
    assert expected_state(plan, config, 1) == 16 * (block + root) // 2


def test_uneven_rows_are_padded() -> None:
    plan = find_model("depth:1")
    config = DryrunConfig("depth:1", data=7, tensor=1)
    groups, has_root = sharded_sizes(plan, config, 1)
    assert has_root
    held = sum(math.ceil(rows / 7) * columns for group in groups for rows, columns in group)
    assert expected_state(plan, config, 1) == 16 * held > 16 * sum(r * c for g in groups for r, c in g) / 7


def test_a_middle_stage_sends_both_ways() -> None:
    plan = find_model("depth:8")
    config = DryrunConfig("depth:8", pipeline=4, stage=1, micro_batches=5, micro_batch=2, seq_len=32)
    messages = expected_messages(plan, config, 2)
    each = 2 * 32 * plan.shape.n_embd * 2
    assert messages["send pipeline"] == messages["receive pipeline"] == Messages(10, 10 * each)
    first = expected_messages(plan, replace(config, stage=0), 2)
    assert first["send pipeline"] == Messages(5, 5 * each)


def test_planned_and_dry_run_stages_hold_the_same_parameters() -> None:
    plan = blueprint("llama3-405b")
    config = DryrunConfig("llama3-405b", data=8, tensor=8, pipeline=7, stage=3)
    groups, _ = sharded_sizes(plan, config, 18)
    counted = sum(rows * columns for group in groups for rows, columns in group)
    planned = stage_params(plan, Layout(8, 8192, data=8, tensor=8, pipeline=7, shard="full"))
    assert counted == pytest.approx(planned.dense - planned.tables, rel=0.001)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stage": 1}, "stage"),
        ({"stage": -1}, "stage"),
        ({"pipeline": 3}, "pipeline"),
        ({"tensor": 4}, "tensor"),
        ({"tensor": 3}, "tensor"),
        ({"layers": 5}, "layers"),
        ({"layers": 0}, "layers"),
        ({"data": 0}, "data"),
        ({"model": "gpt3-175b", "tensor": 1}, "model"),
        ({"model": "mixtral-8x7b"}, "model"),
        ({"model": "nothing"}, "model"),
    ],
    ids=str,
)
def test_impossible_dry_runs_are_refused_by_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(CauserieError) as caught:
        plan_dryrun(replace(SMALL, **change))  # type: ignore[arg-type]
    assert caught.value.code in ("CAU-4306", "CAU-4301")
    assert caught.value.where == field
    assert caught.value.fix


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed form that is wrong by one message is found out."""
    import causerie.plan.dryrun as module

    real = module.expected_messages

    def wrong(*args: object) -> dict[str, Messages]:
        found = dict(real(*args))  # type: ignore[arg-type]
        row = found["all_reduce tensor"]
        return {**found, "all_reduce tensor": Messages(row.count + 1, row.bytes)}

    monkeypatch.setattr(module, "expected_messages", wrong)
    with pytest.raises(CauserieError) as caught:
        plan_dryrun(SMALL)
    assert caught.value.code == "CAU-4309"
    assert "all_reduce tensor" in caught.value.cause
