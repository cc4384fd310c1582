"""Gradients written out by hand against those that autograd derives, in float64, and their bf16 forms against float32's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.model import add_lora, init_model, rotate, summed_loss
from causerie.model import frozen_head as head
from causerie.model import loss as losses
from causerie.model.lora import LoraLinear, LoraProduct
from causerie.model.parts import _kept_turns, _rotate_by_halves, rotation
from tests.train.tiny import SHAPE


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def ids(count: int, below: int, seed: int = 0) -> Tensor:
    return torch.randint(0, below, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head.TILE, "cpu", 7)
    monkeypatch.setitem(head.ROWS, "cpu", 4)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_frozen_head_is_cross_entropy_with_its_gradient(bias: bool, weighted: bool) -> None:
    hidden, weight, targets = numbers(10, 6).requires_grad_(), numbers(31, 6, seed=1), ids(10, 31)
    offset = numbers(31, seed=2) if bias else None
    factors = numbers(10, seed=3).abs() if weighted else None

    def run(hidden: Tensor) -> Tensor:
        return head.frozen_head_nll(hidden, weight, offset, targets, factors, compiled=False)

    each = F.cross_entropy(F.linear(hidden, weight, offset), targets, reduction="none")
    torch.testing.assert_close(run(hidden), (each if factors is None else each * factors).sum())
    assert torch.autograd.gradcheck(run, (hidden,))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("where", [0, 6, 7, 30])
def test_every_tile_finds_its_targets(where: int) -> None:
    """All targets in one place: the first and last of a tile, and the one tile that is not full."""
    hidden, weight, targets = numbers(9, 6), numbers(31, 6, seed=1), torch.full((9,), where)
    found = head.frozen_head_nll(hidden, weight, None, targets, None, compiled=False)
    torch.testing.assert_close(found, F.cross_entropy(hidden @ weight.T, targets, reduction="sum"))


@pytest.mark.usefixtures("small_tiles")
def test_logits_of_any_size_neither_overflow_nor_vanish() -> None:
    weight = torch.arange(31.0, dtype=torch.float64)[:, None] * 100
    hidden = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).requires_grad_()
    targets = torch.tensor([30, 30])
    found = head.frozen_head_nll(hidden, weight, None, targets, None, compiled=False)
    found.backward()
    assert float(found.detach()) == pytest.approx(3000.0)
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.0], [-3000.0]], dtype=torch.float64))


def test_a_certain_model_keeps_a_precise_gradient_in_bf16() -> None:
    """p − 1 = −2e-4 at the target is far below what bf16 tells from 1; it is taken in float32."""
    weight = torch.eye(4).bfloat16()
    hidden = torch.tensor([[9.5, 0.0, 0.0, 0.0]]).bfloat16().requires_grad_()
    head.frozen_head_nll(hidden, weight, None, torch.tensor([0]), None, compiled=False).backward()
    wide = hidden.detach().float().requires_grad_()
    F.cross_entropy(wide @ weight.float().T, torch.tensor([0])).backward()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad.float(), wide.grad, rtol=1e-2, atol=0)


def test_the_frozen_head_in_bf16_is_close_to_float32() -> None:
    hidden, weight, targets = numbers(50, 32), numbers(3000, 32, seed=1) * 0.3, ids(50, 3000)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        x = hidden.to(dtype).requires_grad_()
        loss = head.frozen_head_nll(x, weight.to(dtype), None, targets, None, compiled=False)
        loss.backward()
        assert loss.dtype == torch.float32
        assert x.grad is not None
        found.append((loss.detach(), x.grad.float()))
    (loss, wanted), (narrow_loss, narrow) = found
    torch.testing.assert_close(narrow_loss, loss, rtol=2e-3, atol=0)
    assert float((narrow - wanted).norm() / wanted.norm()) < 0.01


def test_an_undefined_logit_is_not_hidden() -> None:
    hidden = torch.tensor([[float("nan"), 1.0]])
    assert head.frozen_head_nll(hidden, torch.ones(5, 2), None, torch.tensor([1]), None, compiled=False).isnan()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_summed_loss_takes_the_frozen_head_where_nothing_of_it_is_trained(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = init_model(SHAPE, 0)
    if frozen:
        add_lora(model, 2, 4.0)
    taken = []
    real = losses.frozen_head_nll
    monkeypatch.setattr(losses, "frozen_head_nll", lambda *args, **more: taken.append(1) or real(*args, **more))
    hidden = numbers(5, SHAPE.n_embd, dtype=torch.float32).requires_grad_()
    summed_loss(model, hidden, ids(5, SHAPE.vocab_size)).backward()
    assert bool(taken) == frozen
    assert (model.head_weight.grad is None) == frozen


def lora_by_hand(x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return F.linear(x, weight, bias) + scale * ((x @ a.T) @ b.T)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6)])
def test_the_low_rank_product_and_its_gradient(bias: bool, shape: tuple[int, ...]) -> None:
    x, a, b = numbers(*shape).requires_grad_(), numbers(2, 6, seed=1).requires_grad_(), numbers(4, 2, seed=2)
    b.requires_grad_()
    weight, offset = numbers(4, 6, seed=3), numbers(4, seed=4) if bias else None

    def run(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        made: Tensor = LoraProduct.apply(x, weight, offset, a, b, 0.7)
        return made

    torch.testing.assert_close(run(x, a, b), lora_by_hand(x, weight, offset, a, b, 0.7))
    assert torch.autograd.gradcheck(run, (x, a, b))


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
def test_the_low_rank_product_within_autocast(base: torch.dtype) -> None:
    """Output and gradients are those of the layer as it was written before, to a rounding of bf16."""
    layer = LoraLinear(nn.Linear(24, 16).to(base), 4, 2.0, torch.Generator().manual_seed(0))
    nn.init.normal_(layer.lora_B, generator=torch.Generator().manual_seed(1))
    x = numbers(7, 24, dtype=base)
    found = []
    for product in (True, False):
        layer._wants_product = lambda product=product: product  # type: ignore[method-assign]
        layer.zero_grad()
        inner = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(inner)
        out.float().square().sum().backward()
        assert inner.grad is not None
        assert layer.lora_A.grad is not None
        assert layer.lora_A.grad.dtype == torch.float32
        assert inner.grad.dtype == base
        found.append((out.detach().float(), inner.grad.float(), layer.lora_A.grad, layer.lora_B.grad))
    for mine, plain in zip(*found, strict=True):
        assert float((mine - plain).norm() / plain.norm()) < 0.02


def test_a_first_layer_needs_no_gradient_of_its_input() -> None:
    layer = LoraLinear(nn.Linear(6, 4, bias=False), 2, 1.0, None)
    x = numbers(3, 6, dtype=torch.float32)
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.lora_B.grad is not None
    assert layer.weight.grad is None


def test_the_low_rank_product_is_for_training_alone() -> None:
    layer = LoraLinear(nn.Linear(6, 4), 2, 1.0, None)
    assert layer._wants_product()
    with torch.no_grad():
        assert not layer._wants_product()
    layer.requires_grad_(False)
    assert not layer._wants_product()


@pytest.mark.parametrize("chunks", [(64, 512), (3, 6), (4, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_the_summed_loss_and_its_gradients(chunks: tuple[int, int], bias: bool) -> None:
    hidden, weight = numbers(10, 6).requires_grad_(), numbers(31, 6, seed=1).requires_grad_()
    offset = numbers(31, seed=2).requires_grad_() if bias else None
    targets, factors = ids(10, 31), numbers(10, seed=3).abs()

    def run(hidden: Tensor, weight: Tensor, *offset: Tensor) -> Tensor:
        made: Tensor = losses._SummedNll.apply(
            hidden, weight, offset[0] if offset else None, targets, factors, chunks, losses._softmax_step
        )
        return made

    inputs = (hidden, weight) if offset is None else (hidden, weight, offset)
    each = F.cross_entropy(F.linear(hidden, weight, offset), targets, reduction="none")
    torch.testing.assert_close(run(*inputs), (each * factors).sum())
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("heads", [1, 3])
def test_turning_by_halves_is_turning(heads: int) -> None:
    """What a compiler gets is, bit for bit, what runs without one; so are the gradients."""
    cos, sin = rotation(torch.tensor([[0, 1, 2, 0, 1], [3, 4, 5, 6, 7]]), 8, 10_000.0)
    found = []
    for turn in (rotate, _rotate_by_halves):
        x = numbers(2, heads, 5, 8, dtype=torch.float32).requires_grad_()
        out = turn(x, cos, sin)
        (out * torch.arange(8)).sum().backward()
        found.append((out.detach(), x.grad))
    for plain, halves in zip(*found, strict=True):
        assert torch.equal(plain, halves)


def test_the_operator_of_turns_is_one_that_a_compiler_may_keep() -> None:
    positions, frequency = torch.tensor([[0, 1, 5]]), torch.tensor([1.0, 0.1])
    torch.library.opcheck(_kept_turns, (positions, frequency))
    cos, sin = _kept_turns(positions, frequency)
    plain_cos, plain_sin = rotation(positions, 4, 100.0)
    assert torch.equal(cos, plain_cos)
    assert torch.equal(sin, plain_sin)
