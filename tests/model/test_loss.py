"""Chunked losses against plain ones: values, gradients, weights, dtypes; and the compiled training path."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from causerie.model import Transformer, causal_attend, chunked_loss, shape_from_depth, token_log_probs
from tests.model.test_attend import stirred

SHAPE = shape_from_depth(2, 131)
UNTIED = shape_from_depth(13, 131).__class__(**{**vars(SHAPE), "tie_embeddings": False})


def batch(n: int = 23) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    hidden = torch.randn(n, SHAPE.n_embd, generator=generator)
    return hidden, torch.randint(0, 131, (n,), generator=generator), torch.rand(n, generator=generator)


@pytest.mark.parametrize("chunk", [None, 1, 5, 23, 100])
@pytest.mark.parametrize("shape", [SHAPE, UNTIED], ids=["tied", "untied"])
def test_equals_plain_cross_entropy_in_value_and_gradient(shape: object, chunk: int | None) -> None:
    model = stirred(shape).double()  # type: ignore[arg-type]
    hidden, targets, weights = batch()
    plain_in, chunked_in = (hidden.double().requires_grad_() for _ in range(2))
    plain = F.cross_entropy(F.linear(plain_in, model.head_weight), targets, reduction="none") * weights
    chunked = chunked_loss(model, chunked_in, targets, weights, chunk=chunk)
    torch.testing.assert_close(chunked, plain)
    of_plain = torch.autograd.grad(plain.sum(), [plain_in, model.head_weight])
    of_chunked = torch.autograd.grad(chunked.sum(), [chunked_in, model.head_weight])
    torch.testing.assert_close(of_chunked, of_plain)


def test_frozen_head_gets_no_gradient() -> None:
    model = stirred(SHAPE)
    model.requires_grad_(False)
    hidden, targets, _ = batch()
    hidden.requires_grad_()
    chunked_loss(model, hidden, targets, chunk=4).sum().backward()
    assert hidden.grad is not None
    assert model.head_weight.grad is None


def test_no_tokens_no_loss() -> None:
    model = stirred(SHAPE)
    loss = chunked_loss(model, torch.zeros(0, SHAPE.n_embd), torch.zeros(0, dtype=torch.long))
    assert loss.shape == (0,)


def test_autocast_is_close_and_gives_float32_gradients() -> None:
    model = stirred(SHAPE)
    hidden, targets, _ = batch()
    for chunk in (5, 100):
        hidden.grad = model.head_weight.grad = None
        hidden.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = chunked_loss(model, hidden, targets, chunk=chunk)
        loss.sum().backward()
        assert loss.dtype == torch.float32
        assert hidden.grad is not None
        assert hidden.grad.dtype == torch.float32
        torch.testing.assert_close(loss, chunked_loss(model, hidden, targets), rtol=0.02, atol=0.05)


def test_token_log_probs_equal_log_softmax() -> None:
    model = stirred(SHAPE)
    ids = torch.randint(0, 131, (3, 14), generator=torch.Generator().manual_seed(2))
    mask = torch.rand(3, 14, generator=torch.Generator().manual_seed(3)) < 0.5
    found = token_log_probs(model, ids, mask, chunk=4)
    everything = model.logits(model(ids)).log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(found[:, 1:], everything * mask[:, 1:])
    assert (found[:, 0] == 0).all()
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_training_path_is_one_graph_for_every_packing() -> None:
    model = stirred(SHAPE)
    graphs = []

    def count(module: torch.fx.GraphModule, _example: object) -> object:
        graphs.append(module)
        return module.forward

    def step(ids: torch.Tensor, documents: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden = model(ids[:, :-1], positions=positions, attend=causal_attend(SHAPE, documents))
        return chunked_loss(model, hidden.flatten(0, 1), ids[:, 1:].flatten(), chunk=8).mean()

    compiled = torch.compile(step, backend=count, fullgraph=True)
    for length in (5, 7):
        ids = torch.arange(2 * 17).view(2, 17) * length % 131
        row = torch.arange(16)[None].expand(2, -1)
        torch.testing.assert_close(
            compiled(ids, row // length, row % length), step(ids, row // length, row % length), rtol=1e-5, atol=1e-5
        )
    assert len(graphs) == 1


def test_bfloat16_weights_run(tmp_path: object) -> None:
    model: Transformer = stirred(SHAPE).to(torch.bfloat16)
    ids = torch.arange(9)[None]
    hidden = model(ids)
    assert hidden.dtype == torch.bfloat16
    assert model.logits(hidden).dtype == torch.float32
    assert torch.isfinite(chunked_loss(model, hidden[0], ids[0], chunk=2)).all()
