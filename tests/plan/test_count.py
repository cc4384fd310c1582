"""Counts against the real modules and against hand-made arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from causerie.core import CauserieError
from causerie.model import Transformer, shape_from_depth, shape_to_hf
from causerie.plan import CountConfig, blueprint, count, memory, plan_count, training_flops

SHAPE = shape_from_depth(3, 100)


def test_parameters_and_matrices_equal_the_modules() -> None:
    with torch.device("meta"):
        model = Transformer(SHAPE)
    parameters = dict(model.named_parameters())
    figures = count(SHAPE, seq_len=64)
    assert figures["parameters"] == sum(weight.numel() for weight in parameters.values())
    matrices = sum(
        weight.numel() for weight in parameters.values() if weight.ndim == 2
    )  # the tied embedding is the head
    assert figures["matrix_parameters"] == matrices


def test_forward_flops_equal_torchs_own_counter() -> None:
    """Torch counts every product of matrices; attention is spelled out, its fused kernel not being counted."""

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v

    model, length = Transformer(SHAPE), 32
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.logits(model(torch.zeros(1, length, dtype=torch.long), attend=attend))
    assert counter.get_total_flops() == count(SHAPE, seq_len=length)["flops_per_token_forward"] * length


def test_windows_cap_the_context() -> None:
    local = replace(SHAPE, sliding_window=16, local_layers=(True, True, False))
    layer = 12 * SHAPE.n_head * SHAPE.head_dim
    plain, windowed = (count(shape, seq_len=64)["flops_per_token"] for shape in (SHAPE, local))
    assert plain - windowed == layer * 2 * (64 - 16)


def test_memory_adds_up() -> None:
    sizes = memory(SHAPE, batch_size=4, seq_len=128)
    assert sizes["weights"] + sizes["gradients"] + sizes["optimizer"] == 16 * SHAPE.n_params
    assert sizes["logits"] == 4 * 128 * 100 * 4
    assert sizes["cache"] == 4 * 128 * sizes["cache_per_token"]
    parts = ("weights", "gradients", "optimizer", "activations_estimate", "logits")
    assert sizes["training_total"] == sum(sizes[name] for name in parts)
    again = memory(SHAPE, batch_size=4, seq_len=128, recompute=True)
    assert again["activations_estimate"] < sizes["activations_estimate"]


def test_activations_are_near_what_the_backward_pass_keeps() -> None:
    """Torch's saved tensors, each storage once, in float32: within a third."""
    shape, kept = shape_from_depth(4, 100), {}
    model = Transformer(shape)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model(torch.zeros(2, 64, dtype=torch.long))
    measured = sum(size for pointer, size in kept.items() if pointer not in weights)
    estimate = memory(shape, batch_size=2, seq_len=64, activation_bytes=4)["activations_estimate"]
    assert hidden.requires_grad
    assert estimate == pytest.approx(measured, rel=0.34)


def test_the_command_says_its_convention() -> None:
    result = plan_count(CountConfig(depth=2, vocab_size=64, seq_len=32))
    assert result["shape"]["n_layer"] == 2
    assert "embedding lookup out" in result["convention"]
    assert result["memory_bytes"]["seq_len"] == 32


@pytest.mark.parametrize(("field", "value"), [("seq_len", 0), ("seq_len", -5), ("batch_size", 0)])
def test_a_context_or_batch_of_nothing_is_refused(field: str, value: int) -> None:
    with pytest.raises(CauserieError) as caught:
        plan_count(CountConfig(depth=2, **{field: value}))
    assert caught.value.code == "CAU-4301"
    assert caught.value.where == field


def test_a_model_folder_is_counted(tmp_path: Path) -> None:
    """A saved model's config counts as the shape that was saved."""
    shape = shape_from_depth(2, 300)
    (tmp_path / "config.json").write_text(json.dumps(shape_to_hf(shape)))
    found = plan_count(CountConfig(str(tmp_path), seq_len=32))
    assert found["parameters"] == shape.n_params
    assert found["model"] == tmp_path.name
    assert plan_count(CountConfig(str(tmp_path / "config.json"), seq_len=32))["parameters"] == shape.n_params


def test_experts_cost_only_what_is_active() -> None:
    """DeepSeek-V3 in training: about 6 x 37e9 FLOPs a token, though 671e9 parameters are held."""
    plan = blueprint("deepseek-v3")
    figures = count(plan, seq_len=4096)
    assert figures["flops_per_token"] == pytest.approx(6 * 37e9, rel=0.3)
    assert memory(plan, seq_len=1)["weights"] == 4 * plan.n_params
    assert training_flops(plan, 8192) > training_flops(plan, 4096)


def test_encoders_count_their_heads() -> None:
    figures = count(blueprint("bert-base"), seq_len=512)
    assert figures["parameters"] == pytest.approx(110e6, rel=0.01)
