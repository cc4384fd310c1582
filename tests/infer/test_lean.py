"""The lean forms of a model's layers: the same numbers as the layers that they stand for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.adapters import Lanes
from causerie.infer.lean import LeanLayerNorm, LeanModel, LeanNorm, lean_norm, side_by_side, turn_heads
from causerie.infer.lean_mlp import FusedMLP, LeanMLP, lean_mlp
from causerie.infer.packed import WIDTH, packs
from causerie.model import (
    MLP,
    Attend,
    ModelShape,
    RMSNorm,
    RopeScaling,
    Transformer,
    plain_attend,
    rotate,
    rotation,
    save_model,
)

from .tiny import GEMMA, QWEN, prompt_of, random_model

KINDS = [torch.float32, torch.bfloat16]
SHAPES = {
    "qwen3": QWEN,
    "gemma3": GEMMA,
    "llama": replace(QWEN, family="llama", rope_scaling=RopeScaling("linear", 4.0)),
    "qwen2": replace(QWEN, family="qwen2"),
    "phi3": replace(QWEN, family="phi3", rotary_dim=6),
    "phi": replace(QWEN, family="phi", n_kv_head=4, rotary_dim=4, tie_embeddings=False),
    "gpt2": replace(QWEN, family="gpt2", n_kv_head=4),
}
"""Every decoder family: each order of norms, with and without gates, biases, rotation of whole heads and of parts."""
bfloat16_products = pytest.mark.skipif(
    not packs(torch.zeros(1, 1, dtype=torch.bfloat16)), reason="needs a processor that multiplies bfloat16"
)


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
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), wanted, rtol=2e-6, atol=1e-6)


def test_norms_of_several_heads_are_one() -> None:
    first, second = norm_of(8, 0.0), norm_of(8, 0.0)
    with torch.no_grad():
        second.weight.mul_(-3)
    x = torch.randn(1, 5, 6, 8)
    joined: LeanNorm = lean_norm((first, 4), (second, 2))
    assert torch.allclose(joined(x)[:, :, :4], first(x[:, :, :4]), atol=1e-6)
    assert torch.allclose(joined(x)[:, :, 4:], second(x[:, :, 4:]), atol=1e-6)


def test_the_lean_layer_norm_is_torchs() -> None:
    norm = nn.LayerNorm(40).bfloat16()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x, y = torch.randn(2, 5, 40).bfloat16(), torch.randn(2, 5, 40)
    wanted = F.layer_norm(x.double(), (40,), norm.weight.double(), norm.bias.double())
    assert torch.allclose(LeanLayerNorm(norm)(x).double(), wanted, atol=1e-5)
    assert torch.allclose(LeanLayerNorm(norm).onto(y.clone(), x).double(), y + wanted, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_norms_in_place_are_the_same_bits(kind: torch.dtype) -> None:
    """Onto a residual stream, and over a tensor that nobody needs."""
    norm, x = lean_norm((norm_of(40, 1.0), 1)), torch.randn(6, 40)
    y = torch.randn(6, 40).to(kind)
    wanted = norm(y)
    sums = norm.onto(x.clone(), y.clone())
    assert torch.equal(norm.of_own(y.clone()), wanted)
    assert torch.allclose(sums, x + wanted, atol=1e-6)


@pytest.mark.parametrize("dim", [8, 6, 2])
def test_turning_pairs_side_by_side_is_rotation(dim: int) -> None:
    """Head by head the model's `rotate` in another order; dimensions beyond `dim` stay."""
    x, order = torch.randn(1, 5, 3, 8), side_by_side(8, dim)
    cos, sin = rotation(torch.tensor([[0, 1, 7, 300, 9000]]), dim, 1e4)
    turn = torch.complex(cos[..., : dim // 2], sin[..., : dim // 2]).transpose(1, 2)
    wanted = rotate(x.transpose(1, 2), cos, sin).transpose(1, 2)[..., order]
    assert sorted(order.tolist()) == list(range(8))
    assert torch.allclose(turn_heads(x[..., order], turn), wanted, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 400])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gelu_by_the_sigmoid_is_gelu(rows: int, kind: torch.dtype) -> None:
    activation = LeanMLP(MLP(GEMMA), "mlp", Lanes(), int8=False).activation
    x = torch.linspace(-30, 30, rows * GEMMA.ffn_dim).to(kind).view(rows, -1)
    wide = torch.cat((x, torch.ones_like(x)), dim=-1)
    wanted = F.gelu(x.double(), approximate="tanh")
    assert activation.name == "gelu_tanh"
    found = activation(wide)
    assert found.dtype == kind
    assert torch.allclose(found.double(), wanted, rtol=1e-5 if kind == torch.float32 else 2**-8, atol=2e-6)


def random_mlp(shape: ModelShape) -> MLP:
    mlp = MLP(shape).bfloat16()
    generator = torch.Generator().manual_seed(1)
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return mlp


@bfloat16_products
@pytest.mark.parametrize("name", SHAPES)
def test_an_activation_behind_the_product_is_rounded_less(name: str) -> None:
    """Every kind of MLP: nearer to the exact result than in parts, which the model's own is."""
    mlp, x = random_mlp(SHAPES[name]), torch.randn(1, 50, 32, generator=torch.Generator().manual_seed(2)).bfloat16()
    fused = lean_mlp(mlp, "mlp", Lanes(), int8=False)
    parts = LeanMLP(mlp, "mlp", Lanes(), int8=False)
    exact = MLP(SHAPES[name]).double()
    exact.load_state_dict({key: value.double() for key, value in mlp.state_dict().items()})
    with torch.inference_mode():
        wanted = exact(x.double())
        errors = [float((made(x).double() - wanted).norm() / wanted.norm()) for made in (fused, parts)]
    assert isinstance(fused, FusedMLP)
    assert errors[0] < errors[1] < 0.01


@bfloat16_products
@pytest.mark.parametrize("width", [64, 640, 1024])
@pytest.mark.parametrize("family", ["gemma3", "qwen3", "phi"])
def test_fused_rows_do_not_depend_on_their_neighbours(family: str, width: int) -> None:
    mlp = random_mlp(replace(SHAPES[family], n_embd=width, ffn_dim=2 * width))
    fused = lean_mlp(mlp, "mlp", Lanes(), int8=False)
    for count in (2, 7, 64, 200):
        x = torch.randn(1, count, width, generator=torch.Generator().manual_seed(count)).bfloat16()
        assert torch.equal(torch.cat([fused(x[:, row : row + 1]) for row in range(0, count, 5)], 1), fused(x)[:, ::5])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_wider_models_are_computed_in_parts(kind: torch.dtype) -> None:
    """Where sums are taken in two products, nothing can come behind the first."""
    shape = replace(QWEN, n_embd=WIDTH + 8)
    assert isinstance(lean_mlp(MLP(shape).to(kind), "mlp", Lanes(), int8=False), LeanMLP)


def with_biases(name: str) -> Transformer:
    """A random model, biases and norms too."""
    model = random_model(SHAPES[name])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


def attending(shape: ModelShape, length: int) -> Attend:
    return plain_attend(shape, seq_len=length, device=torch.device("cpu"))


@pytest.mark.parametrize("name", SHAPES)
def test_a_lean_model_has_the_same_hidden_states(name: str) -> None:
    plain, lanes = with_biases(name), Lanes()
    lean = LeanModel(with_biases(name), lanes, int8=False)
    ids, positions = torch.tensor([prompt_of(50)]), torch.arange(50)[None]
    with torch.inference_mode():
        wanted = plain(ids)
        assert torch.allclose(lean(ids, positions=positions, attend=attending(plain.shape, 50)), wanted, atol=5e-5)
        lanes.plan([(None, 50)], [3, 49])
        some = lean(ids, positions=positions, attend=attending(plain.shape, 50))
    assert some.shape == (1, 2, plain.shape.n_embd)
    assert torch.allclose(some, wanted[:, [3, 49]], atol=5e-5)


@bfloat16_products
@pytest.mark.parametrize("name", SHAPES)
def test_a_lean_model_in_bfloat16_rounds_no_more_than_the_model_does(name: str) -> None:
    """Against the same rounded weights computed with in float32."""
    exact, plain = with_biases(name).bfloat16().float(), with_biases(name).bfloat16()
    lean = LeanModel(with_biases(name).bfloat16(), Lanes(), int8=False)
    ids, positions = torch.tensor([prompt_of(80)]), torch.arange(80)[None]
    with torch.inference_mode():
        wanted = exact(ids)
        made = lean(ids, positions=positions, attend=attending(exact.shape, 80))
        errors = [float((found.float() - wanted).norm() / wanted.norm()) for found in (made, plain(ids))]
    assert made.dtype == torch.float32
    assert errors[0] < 1.1 * errors[1]


def test_a_lean_model_has_fewer_products() -> None:
    """Four per layer, the lanes know of each, and the model that it was made from has let go of its layers."""
    plain, model, lanes = random_model(QWEN), random_model(QWEN), Lanes()
    LeanModel(model, lanes, int8=False)
    assert len(lanes.sites) == 4 * QWEN.n_layer
    assert sum(len(key) for key in lanes.sites) == sum(isinstance(part, nn.Linear) for part in plain.layers.modules())
    assert not list(model.layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["gemma3", "phi", "llama"])
def test_only_rows_that_are_asked_for_are_computed_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: Literal["float32", "bfloat16"]
) -> None:
    """Tokens and scores are those of computing them all, in a batch of prompts cut into chunks beside decodes."""
    save_model(random_model(SHAPES[name]), tmp_path, None)
    config = EngineConfig(dtype=dtype, max_batch_tokens=24, block_size=4)
    prompts = [prompt_of(length, seed=length) for length in (40, 3, 29)]
    asked = Sampling(max_tokens=6, seed=3, logprobs=True)
    sizes: list[int] = []
    head = Engine(tmp_path, config)
    run = head.runner.model
    monkeypatch.setattr(head.runner, "model", lambda *args, **named: _noted(run(*args, **named), sizes))
    found = generate_batch(head, prompts, asked)
    whole = Engine(tmp_path, config)
    hidden = whole.runner.hidden
    monkeypatch.setattr(whole.runner, "hidden", lambda work, rows=None: hidden(work)[rows])
    wanted = generate_batch(whole, prompts, asked)
    assert max(sizes) <= 3
    assert [item.ids for item in found] == [item.ids for item in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def _noted(hidden: Tensor, sizes: list[int]) -> Tensor:
    sizes.append(hidden.shape[1])
    return hidden
