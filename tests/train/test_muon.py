"""The batched Muon against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from causerie.train.muon import BatchedMuon, orthogonalised

SHAPES = [(16, 48), (48, 16), (16, 48), (32, 32), (48, 16), (16, 48)]


def _trained(make: type[torch.optim.Muon], **settings: object) -> tuple[list[nn.Parameter], torch.optim.Muon]:
    dice = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=dice)) for shape in SHAPES]
    optimizer = make(weights, lr=0.1, weight_decay=0.2, **settings)
    for step in range(4):
        for number, weight in enumerate(weights):
            absent = step == 2 and number == 3
            weight.grad = None if absent else torch.randn(weight.shape, generator=dice)
        optimizer.step()
    return weights, optimizer


@pytest.mark.parametrize("settings", [{}, {"nesterov": False}, {"adjust_lr_fn": "match_rms_adamw"}], ids=str)
@pytest.mark.parametrize("together", [1, 1 << 26])
def test_updates_and_state_are_torchs(
    settings: dict[str, object], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causerie.train.muon.MOST_AT_ONCE", together)
    mine, my_state = _trained(BatchedMuon, **settings)
    theirs, their_state = _trained(torch.optim.Muon, **settings)
    start = torch.randn(SHAPES[0], generator=torch.Generator().manual_seed(0))
    assert (mine[0] - start).abs().max() > 0.05  # it moved
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=3e-3, rtol=0)  # bf16 products in another order
    for a, b in zip(my_state.state.values(), their_state.state.values(), strict=True):
        torch.testing.assert_close(a["momentum_buffer"], b["momentum_buffer"], atol=1e-6, rtol=0)


def test_singular_values_come_near_one() -> None:
    matrices = torch.randn(3, 64, 24, generator=torch.Generator().manual_seed(1))
    turned = orthogonalised(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7).float()
    values = torch.linalg.svdvals(turned)
    assert 0.6 < float(values.min()) < float(values.max()) < 1.3
    for matrix, made in zip(matrices, turned, strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        assert torch.nn.functional.cosine_similarity(made.flatten(), (left @ right).flatten(), 0) > 0.97


def test_the_same_matrices_give_the_same_bits() -> None:
    matrices = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(2))
    again = orthogonalised(matrices.clone(), (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert torch.equal(orthogonalised(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7), again)
