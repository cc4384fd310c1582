"""With an adapter the output projection is frozen: objectives take its one-pass loss, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from causerie.align import Group, completion_log_probs, dpo_loss, layout
from causerie.align.losses import PairLogProbs, kto_loss
from causerie.align.shared_rows import completion_token_log_probs
from causerie.model import add_lora, load_model, lora_parameters
from causerie.model import loss as losses

GROUPS = [
    Group((1, 5, 9, 30), ((7, 8, 40, 2), (7, 2))),
    Group((4, 4, 31), ((60, 61, 62, 63, 2), (9, 10, 11, 2))),
]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that went the one-pass way; few rows are many here."""
    found: list[int] = []
    real = losses.frozen_head_losses
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(losses, "frozen_head_losses", lambda *a, **k: found.append(a[0].shape[0]) or real(*a, **k))
    return found


def gradients(
    folder: Path, temperature: float, objective: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of an adapter by the path that `written` names."""
    model = load_model(folder)
    add_lora(model, 4, 8.0, seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(lora_parameters(model).values()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    with monkeypatch.context() as patched:
        if not written:
            patched.setattr(losses, "_frozen", lambda _model: False)
        batch = layout(GROUPS)
        if objective == "tokens":
            loss = -completion_token_log_probs(model, batch, temperature).square().sum()
        else:
            sums = completion_log_probs(model, batch).sums
            loss = preference(sums, objective)
        loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in lora_parameters(model).values() if p.grad is not None])


def preference(sums: Tensor, objective: str) -> Tensor:
    reference = torch.tensor([-20.0, -10.0, -28.0, -21.0])
    if objective == "dpo":
        sizes = torch.tensor([4, 2, 5, 4])
        policy, old = (PairLogProbs(each[0::2], each[1::2], sizes[0::2], sizes[1::2]) for each in (sums, reference))
        return dpo_loss(policy, old).sum()
    return kto_loss(sums, reference, torch.tensor([True, False, True, False]), torch.tensor(0.1)).sum()


@pytest.mark.parametrize(("objective", "temperature"), [("dpo", 1.0), ("kto", 1.0), ("tokens", 1.0), ("tokens", 0.7)])
def test_losses_and_gradients_are_those_of_the_chunked_way(
    tiny: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch, objective: str, temperature: float
) -> None:
    one_pass = gradients(tiny, temperature, objective, True, monkeypatch)
    assert taken == [sum(len(answer) for group in GROUPS for answer in group.completions)]
    chunked = gradients(tiny, temperature, objective, False, monkeypatch)
    assert len(taken) == 1
    for mine, theirs in zip(one_pass, chunked, strict=True):
        assert float((mine - theirs).norm()) <= 1e-5 * float(theirs.norm())
    assert float(one_pass[1].abs().max()) > 1e-4


def test_scoring_and_whole_models_go_the_other_way(tiny: Path, taken: list[int]) -> None:
    """Without a gradient nothing is gained; with a trained projection its own gradient is wanted."""
    model = load_model(tiny)
    batch = layout(GROUPS)
    completion_log_probs(model, batch).sums.sum().backward()
    add_lora(model, 4, 8.0, seed=1)
    with torch.no_grad():
        completion_log_probs(model, batch)
    assert taken == []
