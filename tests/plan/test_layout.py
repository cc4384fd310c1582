"""Impossible layouts are refused by field; possible ones are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.plan import HARDWARE, Layout, blueprint, check_layout, hardware, step_time

GPT3 = blueprint("gpt3-175b")
FINE = Layout(1536, 2048, data=8, tensor=8, pipeline=8, interleave=3)


def test_a_good_layout_passes() -> None:
    check_layout(GPT3, FINE, hardware("a100-80gb"))
    assert FINE.devices == 512
    assert FINE.micro_batches == 192
    assert FINE.tokens == 1536 * 2048


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tensor": 7}, "tensor"),
        ({"tensor": 0}, "tensor"),
        ({"data": -1}, "data"),
        ({"data": 2.0}, "data"),
        ({"pipeline": 97, "interleave": 1}, "pipeline"),
        ({"pipeline": 64}, "pipeline"),
        ({"interleave": 5}, "interleave"),
        ({"pipeline": 1, "interleave": 2}, "interleave"),
        ({"global_batch": 100}, "global_batch"),
        ({"global_batch": 8 * 12}, "global_batch"),
        ({"context": 3}, "context"),
        ({"expert": 2}, "expert"),
        ({"micro_batch": 0}, "micro_batch"),
        ({"seq_len": 0}, "seq_len"),
        ({"seq_len": 1 << 40}, "seq_len"),
        ({"recompute": "some"}, "recompute"),
        ({"shard": "half"}, "shard"),
        ({"kernels": "new"}, "kernels"),
        ({"precision": "fp4"}, "precision"),
        ({"precision": "fp8"}, "precision"),
    ],
    ids=str,
)
def test_impossible_layouts_are_refused_by_field(change: dict[str, object], field: str) -> None:
    layout = replace(FINE, **change)  # type: ignore[arg-type]
    with pytest.raises(CauserieError) as caught:
        check_layout(GPT3, layout, hardware("a100-80gb"))
    assert caught.value.code == "CAU-4306"
    assert caught.value.where == field
    assert caught.value.fix


def test_experts_divide_and_fit_in_data() -> None:
    plan = blueprint("moe-1t")
    check_layout(plan, Layout(64, 4096, data=16, expert=16))
    for change in ({"expert": 3}, {"expert": 32}):
        with pytest.raises(CauserieError) as caught:
            check_layout(plan, replace(Layout(64, 4096, data=16), **change))
        assert caught.value.where == "expert"


def test_few_key_heads_allow_a_multiple() -> None:
    """Eight key heads over 16 devices: each is copied; over 3 it is impossible."""
    plan = blueprint("llama3-405b")
    check_layout(plan, Layout(16, 8192, tensor=16))
    with pytest.raises(CauserieError):
        check_layout(plan, Layout(16, 8192, tensor=3))


def test_unknown_hardware_and_bad_prices_are_refused() -> None:
    with pytest.raises(CauserieError) as caught:
        hardware("h100")
    assert caught.value.code == "CAU-4307"
    assert "h100-80gb" in caught.value.fix
    for price in (-1.0, float("nan"), float("inf")):
        with pytest.raises(CauserieError) as caught:
            hardware("h100-80gb", dollars=price)
        assert caught.value.where == "dollars"
    assert hardware("h100-80gb", dollars=2.0).dollars == 2.0


@pytest.mark.parametrize("name", [*HARDWARE])
def test_every_row_of_hardware_is_sound(name: str) -> None:
    row = hardware(name)
    assert 0.3 < row.efficiency < 1
    assert row.link >= row.network > 0
    assert row.peak / row.bandwidth > 1  # FLOPs a byte: no machine computes slower than it reads
    assert row.fitted_on
    assert row.mtbf_hours > 1000


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(-1, 12)] * 8), batch=st.integers(0, 200), seq=st.sampled_from([0, 7, 512, 2048]),
    mode=st.sampled_from(["none", "selective", "full"]), shard=st.sampled_from(["none", "optimizer", "full"]),
)  # fmt: skip
def test_any_layout_is_refused_in_words_or_timed(
    sizes: tuple[int, ...], batch: int, seq: int, mode: str, shard: str
) -> None:
    data, tensor, pipeline, context, expert, micro, chunks, _ = sizes
    layout = Layout(batch, seq, data, tensor, pipeline, context, expert, micro, chunks, mode, shard=shard)  # type: ignore[arg-type]
    plan = blueprint("mixtral-8x7b")
    try:
        step = step_time(plan, layout, hardware("h100-80gb"))
    except CauserieError as error:
        refused = error
    else:
        assert 0 < step.seconds < 1e9
        assert 0 < step.mfu < 1
        return
    assert refused.code == "CAU-4306"
    assert refused.where
    assert refused.fix
