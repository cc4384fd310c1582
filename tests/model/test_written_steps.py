"""Steps of training on CPUs that are written out: products by oneDNN, turned heads, dense attention, against plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.model import ModelShape, add_lora, causal_attend, init_model, named_shape, products, rotate, summed_loss
from causerie.model import parts as model_parts
from causerie.model.dense_attention import DenseBlock, added_mask, dense_attention
from causerie.model.parts import RMSNorm, rotation
from causerie.model.products import JointProduct, Linear, Product, joint_product, wants_onednn
from causerie.model.turned_heads import TurnedHeads, wants_turned_heads
from tests.train.tiny import SHAPE

ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradients(make: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result and the gradients of its product with fixed numbers, of every input."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    made = make(*leaves)
    (made * numbers(*made.shape, seed=99, dtype=made.dtype)).sum().backward()
    return [made.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_equal(found: list[Tensor], wanted: list[Tensor], tolerance: float = 2e-5) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this machine counts as one whose float32 products oneDNN runs faster."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)
    return bool(request.param)


@ONEDNN
@pytest.mark.parametrize("shape", [(9, 7), (2, 5, 7), (3, 40, 7), (1, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_gradients(shape: tuple[int, ...], bias: bool) -> None:
    inputs = [numbers(*shape), numbers(4, 7, seed=1), *([numbers(4, seed=2)] if bias else [])]
    found = gradients(lambda x, w, *b: Product.apply(x, w, b[0] if b else None), *inputs)
    assert_equal(found, gradients(lambda x, w, *b: F.linear(x, w, b[0] if b else None), *inputs))


@ONEDNN
@pytest.mark.parametrize("sizes", [(4, 4), (6, 2, 2), (40, 40)])
def test_joint_products_and_their_gradients(sizes: tuple[int, ...]) -> None:
    x, weights = numbers(2, 11, 8), [numbers(size, 8, seed=size + place) for place, size in enumerate(sizes)]
    found = gradients(lambda x, *w: JointProduct.apply(x, *w), x, *weights)
    assert_equal(found, gradients(lambda x, *w: torch.cat([F.linear(x, each) for each in w], -1), x, *weights))


def test_products_are_taken_in_training_alone(onednn: bool) -> None:
    layer, x = Linear(8, 4), numbers(3, 8)
    assert wants_onednn(x, layer.weight) == onednn
    with torch.no_grad():
        assert not wants_onednn(x, layer.weight)
    assert not wants_onednn(x.bfloat16(), layer.weight)
    assert not wants_onednn(x, layer.weight * 1)  # no whole weight of its own
    with torch.autocast("cpu", torch.bfloat16):
        assert not wants_onednn(x, layer.weight)
    layer.requires_grad_(False)
    assert not wants_onednn(x, layer.weight)
    assert wants_onednn(x.requires_grad_(), layer.weight) == onednn


def test_adapters_keep_their_own_products() -> None:
    model = init_model(SHAPE, 0)
    add_lora(model, 2, 4.0)
    attention = model.layers[0].self_attn
    x = numbers(1, 3, SHAPE.n_embd).requires_grad_()
    found = joint_product(x, attention.q_proj, attention.k_proj)  # type: ignore[union-attr,arg-type]
    assert torch.equal(found[0], attention.q_proj(x))  # type: ignore[union-attr,operator]


def test_the_variable_leaves_torch_its_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSERIE_PRODUCTS", "plain")
    products._by_processor.cache_clear()
    assert not products.onednn_is_faster()
    monkeypatch.undo()
    products._by_processor.cache_clear()


def by_parts(norm: RMSNorm, cos: Tensor, sin: Tensor) -> Callable[..., Tensor]:
    """Norm and turn with nothing but the formulas."""

    def make(wide: Tensor, weight: Tensor) -> Tensor:
        heads = wide.view(*wide.shape[:-1], -1, weight.shape[0])
        unit = heads * torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + norm.eps)
        return rotate((unit * weight).transpose(1, 2), cos, sin)

    return make


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_turned_heads_and_their_gradients(heads: int, rows: int) -> None:
    """Positions of one row for all, or of each row; the documents of a row start anew."""
    positions = torch.tensor([[0, 1, 2, 0, 1]] if rows == 1 else [[0, 1, 2, 3, 4], [0, 0, 1, 0, 1], [7, 8, 9, 10, 11]])
    cos, sin = rotation(positions, 8, 10_000.0)
    wide, weight, norm = numbers(3, 5, heads * 8), numbers(8, seed=1), RMSNorm(8, 1e-6, 0.0)
    found = gradients(lambda x, w: TurnedHeads.apply(x, w, cos, sin, norm.eps), wide, weight)
    assert_equal(found, gradients(by_parts(norm, cos, sin), wide, weight))
    assert found[0].is_contiguous()


def test_turned_heads_of_a_part_of_a_joint_projection() -> None:
    cos, sin = rotation(torch.arange(5)[None], 8, 10_000.0)
    weight = numbers(8, seed=1)
    found = gradients(lambda x, w: TurnedHeads.apply(x[..., 4:20], w, cos, sin, 1e-6), numbers(2, 5, 24), weight)
    plain = by_parts(RMSNorm(8, 1e-6, 0.0), cos, sin)
    assert_equal(found, gradients(lambda x, w: plain(x[..., 4:20], w), numbers(2, 5, 24), weight))


def test_turned_heads_in_bf16_round_once() -> None:
    cos, sin = rotation(torch.arange(5)[None], 8, 10_000.0)
    wide, weight = numbers(2, 5, 16, dtype=torch.bfloat16), numbers(8, seed=1)
    found = gradients(lambda x, w: TurnedHeads.apply(x, w, cos, sin, 1e-6), wide, weight)
    wanted = gradients(by_parts(RMSNorm(8, 1e-6, 0.0), cos, sin), wide.float(), weight)
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    assert torch.equal(found[0], wanted[0].bfloat16())
    assert_equal([value.float() for value in found], wanted, 0.02)


def test_turned_heads_are_left_where_only_a_part_turns_or_nothing_is_trained() -> None:
    cos, _ = rotation(torch.arange(5)[None], 8, 10_000.0)
    wide = numbers(1, 5, 16)
    assert not wants_turned_heads(wide, cos, 8)
    assert wants_turned_heads(wide.requires_grad_(), cos, 8)
    assert not wants_turned_heads(wide, cos, 16)
    with torch.no_grad():
        assert not wants_turned_heads(wide, cos, 8)


def documents(rows: int, length: int) -> Tensor:
    """(B, 1, T, T): causal within documents of five tokens, which begin elsewhere in every row."""
    doc = (torch.arange(length)[None] + torch.arange(rows)[:, None]) // 5
    at = torch.arange(length)
    return ((doc[:, :, None] == doc[:, None, :]) & (at[:, None] >= at[None, :]))[:, None]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("length", [9, 300])
def test_dense_attention_and_its_gradients(kv_heads: int, masked: bool, length: int) -> None:
    """torch's own attention is the reference; 300 tokens are attended in three blocks."""
    q, k, v = numbers(2, 4, length, 8), numbers(2, kv_heads, length, 8, seed=1), numbers(2, kv_heads, length, 8, seed=2)
    mask = documents(2, length) if masked else None
    found = gradients(lambda q, k, v: dense_attention(q, k, v, mask, True, 0.3), q, k, v)

    def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=0.3, enable_gqa=True)

    assert_equal(found, gradients(torchs, q, k, v), 5e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_block_of_attention_in_double_precision(grouped: bool) -> None:
    q, k, v = (numbers(1, 2, 4, 3, seed=s).requires_grad_() for s in range(3))
    k, v = (k[:, :1].detach().requires_grad_(), v[:, :1].detach().requires_grad_()) if grouped else (k, v)
    added = added_mask(None, q.detach())
    torch.testing.assert_close(
        DenseBlock.apply(q, k, v, added, 0.7),
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.7, enable_gqa=True),
    )


def test_what_is_not_seen_has_no_gradient_at_all() -> None:
    q, k, v = (numbers(1, 1, 10, 4, seed=s).requires_grad_() for s in range(3))
    dense_attention(q, k, v, documents(1, 10), True, 0.5)[:, :, 5:].sum().backward()
    assert k.grad is not None
    assert v.grad is not None
    assert not k.grad[:, :, :5].any()
    assert not v.grad[:, :, :5].any()
    assert k.grad[:, :, 5:].any()


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in this file switched off."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    monkeypatch.setattr(model_parts, "wants_turned_heads", lambda *_: False)
    monkeypatch.setattr(model_parts, "wants_unit_norm", lambda *_: False)
    monkeypatch.setattr("causerie.model.attend.wants_dense", lambda *_: False)


SMALL_GEMMA = replace(
    named_shape("gemma3-270m").shape, n_layer=2, n_embd=16, n_head=2, n_kv_head=1, head_dim=8, ffn_dim=32, vocab_size=64,
    sliding_window=4, local_layers=(True, False), max_seq_len=64,
)  # fmt: skip


@pytest.mark.parametrize(
    "shape",
    [SHAPE, replace(SHAPE, n_kv_head=2, tie_embeddings=False), replace(SHAPE, family="llama"), SMALL_GEMMA],
    ids=["qwen3", "untied", "llama", "gemma3"],
)
def test_a_whole_training_step_is_that_of_plain_torch(
    shape: ModelShape, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    ids = torch.randint(0, 64, (3, 13), generator=torch.Generator().manual_seed(1))
    doc = torch.arange(12)[None].expand(3, -1) // 5
    for plain in (False, True):
        if plain:
            plainly(monkeypatch)
        model = init_model(shape, 0)
        with torch.no_grad():
            for place, weight in enumerate(model.parameters()):
                weight.add_(0.2 * numbers(*weight.shape, seed=place))
        hidden = model(ids[:, :-1], positions=torch.arange(12)[None] % 5, attend=causal_attend(shape, doc))
        loss = summed_loss(model, hidden.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        found.append([loss.detach(), *(w.grad for w in model.parameters() if w.grad is not None)])
    assert_equal(found[0], found[1], 1e-4)
    assert all(isinstance(layer, nn.Linear) for layer in (model.layers[0].mlp.down_proj,))  # type: ignore[union-attr]


def test_a_frozen_base_in_bf16_with_adapters_trains(onednn: bool) -> None:
    """Head norms with weights near 0 and an offset of 1: the sum is not rounded to bf16."""
    model = init_model(SMALL_GEMMA, 0)
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.o_proj.weight.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr,operator]
    model.bfloat16()
    add_lora(model, 2, 4.0)
    norm = model.layers[0].self_attn.q_norm  # type: ignore[union-attr]
    assert isinstance(norm, RMSNorm)
    with torch.no_grad():
        norm.weight.fill_(0.001)
    assert torch.allclose(norm.factor, torch.full((8,), 1.001), atol=1e-5)
    ids = torch.arange(14)[None]
    summed_loss(model, model(ids)[0], ids[0]).backward()
    gradient = model.layers[0].self_attn.q_proj.lora_B.grad  # type: ignore[union-attr]
    assert isinstance(gradient, Tensor)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
