"""The fast paths of training against torch's own attention and cross-entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from causerie.model import Transformer, causal_attend, chunked_loss, init_model, summed_loss
from causerie.model.dense_attention import dense_attention, wants_dense
from causerie.model.rms_norm import UnitNorm, wants_unit_norm
from tests.train.tiny import SHAPE, tiny_model


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("kind", ["causal", "both ways", "documents"])
def test_dense_attention_is_torchs_with_its_gradients(heads: tuple[int, int], kind: str) -> None:
    torch.manual_seed(0)
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])
    mask = (documents[:, :, None] == documents[:, None]) & torch.ones(7, 7, dtype=torch.bool).tril()
    mask = mask[:, None] if kind == "documents" else None
    found = []
    for dense in (False, True):
        q, k, v = (
            torch.randn(
                2, n, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(n + i)
            ).requires_grad_()
            for i, n in enumerate((heads[0], heads[1], heads[1]))
        )
        if dense:
            out = dense_attention(q, k, v, mask, kind != "both ways", 0.3)
        else:
            causal = kind == "causal"
            out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=0.3, enable_gqa=True)
        (out * torch.arange(8)).sum().backward()
        found.append((out.detach(), q.grad, k.grad, v.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)  # weights are normalised in float32


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("length", [5, 8, 11, 30])
def test_blocks_of_queries_change_nothing(documents: bool, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    if documents:
        ids = torch.arange(length) // 3
        mask = mask & (ids[:, None] == ids[None])
    found = []
    for block in (4, 1000):
        monkeypatch.setattr("causerie.model.dense_attention.BLOCK", block)
        dice = torch.Generator().manual_seed(1)
        q, k, v = (torch.randn(2, n, length, 8, generator=dice).requires_grad_() for n in (4, 2, 2))
        out = dense_attention(q, k, v, mask if documents else None, True, 0.3)
        (out * torch.arange(8)).sum().backward()
        found.append((out.detach(), q.grad, k.grad, v.grad))
    for blocked, whole in zip(*found, strict=True):
        torch.testing.assert_close(blocked, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 3, 4, 8), (7, 4)])
def test_the_written_gradient_of_the_norm(shape: tuple[int, ...]) -> None:
    dice = torch.Generator().manual_seed(2)
    x = torch.randn(shape, dtype=torch.float64, generator=dice).requires_grad_()
    weight = torch.randn(shape[-1], dtype=torch.float64, generator=dice).requires_grad_()
    torch.testing.assert_close(UnitNorm.apply(x, weight, 1e-5), F.rms_norm(x, shape[-1:], weight, 1e-5))
    assert torch.autograd.gradcheck(lambda x, w: UnitNorm.apply(x, w, 1e-5), (x, weight))


def test_the_written_norm_is_for_training_in_float32() -> None:
    x = torch.zeros(2, 4)
    assert not wants_unit_norm(x)
    assert wants_unit_norm(x.requires_grad_())
    assert not wants_unit_norm(x.bfloat16())
    with torch.no_grad():
        assert not wants_unit_norm(x)


def test_dense_attention_is_for_training_on_short_rows() -> None:
    short, long = torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 2000, 4)
    assert wants_dense(short.requires_grad_(), short)
    assert not wants_dense(long.requires_grad_(), long)
    assert not wants_dense(torch.zeros(1, 1, 8, 4), short)


def _backward(model: Transformer, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [64, 1 << 22])
def test_summed_loss_is_the_sum_of_cross_entropies(tied: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("causerie.model.loss", fromlist=["x"]).SUMMED_CHUNK, "cpu", chunk)
    model = tiny_model(tie_embeddings=tied)
    ids = torch.randint(0, SHAPE.vocab_size, (3, 9))
    weights = torch.rand(27)

    def hidden() -> torch.Tensor:
        return model(ids, attend=causal_attend(SHAPE, torch.zeros(3, 9, dtype=torch.int32))).flatten(0, 1)

    plain = (F.cross_entropy(model.logits(hidden()), ids.flatten(), reduction="none") * weights).sum()
    wanted = _backward(model, 3 * plain)
    fast = summed_loss(model, hidden(), ids.flatten(), weights)
    assert float(fast.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    for name, gradient in _backward(model, 3 * fast).items():
        torch.testing.assert_close(gradient, wanted[name], atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        assert float(summed_loss(model, hidden(), ids.flatten(), weights)) == pytest.approx(float(plain.detach()))


def test_summed_loss_of_an_encoder_counts_its_head_and_bias() -> None:
    from causerie.model import ModelShape

    shape = ModelShape(
        family="modernbert", n_layer=1, n_embd=16, n_head=2, n_kv_head=2, head_dim=8, ffn_dim=32, vocab_size=40
    )
    model = init_model(shape, 0)
    ids = torch.randint(0, 40, (2, 6))
    wanted = _backward(model, chunked_loss(model, model(ids).flatten(0, 1), ids.flatten()).sum())
    found = _backward(model, summed_loss(model, model(ids).flatten(0, 1), ids.flatten()))
    assert "head_bias" in found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4)
