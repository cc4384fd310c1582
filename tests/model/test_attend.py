"""Who sees whom: packed documents equal separate ones, windows, padding, no gradient across documents."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from causerie.model import Transformer, causal_attend, init_model, shape_from_depth
from causerie.model.shape import ModelShape
from tests.model.test_shape import GEMMA

QWEN = shape_from_depth(2, 77)
LENGTHS = (5, 9, 1, 8)


def stirred(shape: ModelShape) -> Transformer:
    """A model whose every weight matters (nothing at zero)."""
    model = init_model(shape, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def packed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, document ids and positions of documents in one row."""
    ids = torch.randint(0, 77, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(5))
    documents = torch.cat([torch.full((length,), number) for number, length in enumerate(LENGTHS)])[None]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    return ids, documents, positions


@pytest.mark.parametrize("shape", [QWEN, GEMMA], ids=["qwen3", "gemma3"])
def test_packed_equals_separate(shape: ModelShape) -> None:
    model = stirred(shape)
    ids, documents, positions = packed()
    with torch.no_grad():
        together = model(ids, positions=positions, attend=causal_attend(shape, documents))
        apart = torch.cat([model(part) for part in ids.split(LENGTHS, dim=1)], dim=1)
    torch.testing.assert_close(together, apart, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [QWEN, GEMMA], ids=["qwen3", "gemma3"])
def test_gradient_across_documents_is_exactly_zero(shape: ModelShape) -> None:
    model = stirred(shape)
    ids, documents, positions = packed()
    entered: list[torch.Tensor] = []
    handle = model.embed_tokens.register_forward_hook(lambda _m, _i, out: entered.append(out.retain_grad() or out))
    hidden = model(ids, positions=positions, attend=causal_attend(shape, documents))
    handle.remove()
    hidden[0, LENGTHS[0] : LENGTHS[0] + LENGTHS[1]].pow(2).sum().backward()
    gradient = entered[0].grad
    assert gradient is not None
    inside = documents[0] == 1
    assert (gradient[0][~inside] == 0).all()
    assert (gradient[0][inside] != 0).any(-1).all()


@pytest.mark.parametrize("shape", [QWEN, GEMMA], ids=["qwen3", "gemma3"])
def test_the_future_does_not_reach_the_past(shape: ModelShape) -> None:
    model = stirred(shape)
    ids = torch.arange(30)[None]
    changed = ids.clone()
    changed[0, 20:] += 40
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[:, :20], model(changed)[:, :20], rtol=0, atol=1e-6)


def test_padding_on_either_side_changes_nothing() -> None:
    model = stirred(GEMMA)
    ids = torch.arange(7)[None]
    pad = torch.zeros(1, 4, dtype=torch.long)
    documents = torch.tensor([[-1] * 4 + [0] * 7])
    positions = torch.tensor([[0] * 4 + list(range(7))])
    with torch.no_grad():
        plain = model(ids)
        right = model(torch.cat((ids, pad), 1))[:, :7]
        left = model(torch.cat((pad, ids), 1), positions=positions, attend=causal_attend(GEMMA, documents))[:, 4:]
    torch.testing.assert_close(right, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(left, plain, rtol=0, atol=1e-5)


def test_only_differences_of_positions_matter() -> None:
    model = stirred(QWEN)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        shifted = model(ids, positions=torch.arange(1000, 1012)[None])
        torch.testing.assert_close(shifted, model(ids), rtol=0, atol=1e-3)


def test_a_window_hides_what_lies_before_it() -> None:
    shape = dataclasses.replace(GEMMA, n_layer=1, local_layers=(True,), sliding_window=3)
    model = stirred(shape)
    ids = torch.arange(10)[None]
    changed = ids.clone()
    changed[0, 0] = 70
    with torch.no_grad():
        before, after = model(ids), model(changed)
    assert torch.equal(before[:, 3:], after[:, 3:])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_masks_are_only_built_where_needed() -> None:
    assert causal_attend(QWEN).full is None
    assert causal_attend(GEMMA, seq_len=4).local is None
    assert causal_attend(GEMMA, seq_len=5).local is not None
