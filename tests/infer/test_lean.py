"""The lean forms of a model's layers: the same numbers as the layers that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from causerie.infer.adapters import Lanes
from causerie.infer.lean import LeanMLP, LeanNorm, lean_norm, make_lean
from causerie.model import MLP, RMSNorm, Transformer

from .tiny import GEMMA, QWEN, prompt_of, random_model

KINDS = [torch.float32, torch.bfloat16]


def norm_of(size: int, offset: float) -> RMSNorm:
    norm = RMSNorm(size, 1e-6, offset)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-0.5, 1.5, size))
    return norm


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_lean_norm_is_torchs(offset: float, kind: torch.dtype) -> None:
    """Against torch's rms_norm, also for rows of tiny numbers, where eps decides, and of zeros."""
    norm = norm_of(40, offset)
    x = torch.randn(3, 7, 40, generator=torch.Generator().manual_seed(0))
    x = (x * torch.tensor([1e-4, 1.0, 1e3])[:, None, None]).to(kind)
    x[0, 0] = 0
    found = lean_norm((norm, 1))(x)
    wanted = F.rms_norm(x.double(), (40,), norm.weight.double() + offset, 1e-6)
    assert found.dtype == kind
    assert torch.allclose(found.double(), wanted, rtol=2e-6 if kind == torch.float32 else 2**-8, atol=1e-6)


def test_norms_of_several_heads_are_one() -> None:
    first, second = norm_of(8, 0.0), norm_of(8, 0.0)
    with torch.no_grad():
        second.weight.mul_(-3)
    x = torch.randn(1, 5, 6, 8)
    joined: LeanNorm = lean_norm((first, 4), (second, 2))
    assert torch.allclose(joined(x)[:, :, :4], first(x[:, :, :4]), atol=1e-6)
    assert torch.allclose(joined(x)[:, :, 4:], second(x[:, :, 4:]), atol=1e-6)


@pytest.mark.parametrize("rows", [1, 400])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gelu_by_the_sigmoid_is_gelu(rows: int, kind: torch.dtype) -> None:
    mlp = LeanMLP(MLP(GEMMA), "mlp", Lanes(), int8=False)
    x = torch.linspace(-30, 30, rows * GEMMA.ffn_dim).to(kind).view(rows, -1)
    wanted = F.gelu(x.double(), approximate="tanh")
    found = mlp._activate(x)
    assert mlp.activation == "gelu_tanh"
    assert found.dtype == kind
    assert torch.allclose(found.double(), wanted, rtol=1e-5 if kind == torch.float32 else 2**-8, atol=2e-6)


@pytest.mark.parametrize("shape", [QWEN, GEMMA], ids=["qwen3", "gemma3"])
def test_a_lean_model_has_the_same_hidden_states(shape: object) -> None:
    plain, lean = random_model(shape), random_model(shape)  # type: ignore[arg-type]
    make_lean(lean, Lanes(), int8=False)
    ids = torch.tensor([prompt_of(50)])
    with torch.inference_mode():
        assert torch.allclose(lean(ids), plain(ids), atol=2e-5)


def test_a_lean_model_has_fewer_products(qwen: Transformer) -> None:
    """Four per layer, the lanes know of each, and no part of a layer is a module any more: calling one takes longer."""
    lean, lanes = random_model(QWEN), Lanes()
    make_lean(lean, lanes, int8=False)
    assert len(lanes.sites) == 4 * QWEN.n_layer
    assert sum(len(key) for key in lanes.sites) == sum(isinstance(part, nn.Linear) for part in qwen.layers.modules())
    assert not [part for layer in lean.layers for part in layer.children()]
    assert isinstance(lean.norm, LeanNorm)
    assert any(isinstance(module, RMSNorm) for module in qwen.modules())
