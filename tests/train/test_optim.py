"""Which weights go to which optimiser, in every family; clipping and updates against torch's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from causerie.model import FAMILIES, Transformer, add_lora, init_model
from causerie.train import make_optimizers
from causerie.train.optim import ADAM_BETAS, Optimizers, count_trainable
from tests.train.tiny import SHAPE, RandomRows, objective, settings, tiny_model


def of_family(name: str) -> Transformer:
    heads = replace(SHAPE, family=name, n_kv_head=2, tie_embeddings=False)
    return init_model(heads, 0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_weight_is_in_one_group_and_only_matrices_decay(family: str, optimizer: str) -> None:
    """Embeddings and the output projection are none of them, blocks' matrices are, also one of `vocab_size` rows."""
    model = of_family(family)
    optimizers = make_optimizers(model, settings(optimizer=optimizer, weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    held = [names[id(p)] for p in optimizers.parameters()]
    assert sorted(held) == sorted(names.values())
    for part in optimizers.parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                inside = parameter.ndim == 2 and not name.startswith(("embed_", "lm_head."))
                assert (group["weight_decay"] > 0) == inside, name
                assert isinstance(part, torch.optim.Muon) == (inside and optimizer == "muon"), name
    assert count_trainable(model) == sum(p.numel() for p in model.parameters())


def test_tied_embeddings_are_trained_once() -> None:
    model = tiny_model()
    assert model.shape.tie_embeddings
    held = make_optimizers(model, settings()).parameters()
    assert len({id(p) for p in held}) == len(held) == len(list(model.parameters()))


def test_of_a_model_with_an_adapter_only_the_adapter_is_trained() -> None:
    model = tiny_model()
    add_lora(model, 2, 4.0)
    held = make_optimizers(model, settings(optimizer="adamw")).parameters()
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in held} == {"lora_A", "lora_B"}
    assert sum(p.numel() for p in held) == count_trainable(model) < 0.5 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("largest", [0.0, 0.01, 0.5, 1e9])
@pytest.mark.parametrize("divisor", [1.0, 37.0])
def test_clipping_is_torchs(largest: float, divisor: float) -> None:
    mine, theirs = tiny_model(), tiny_model()
    (batch,) = RandomRows().micro_batches(0)
    for model in (mine, theirs):
        objective(model, batch).loss_sum.backward()
    norm = make_optimizers(mine, settings()).scale_and_clip(divisor, largest)
    for p in theirs.parameters():
        assert p.grad is not None
        p.grad /= divisor
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), largest or float("inf"))
    assert norm == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-7, rtol=1e-4)


def test_a_gradient_that_is_not_finite_is_told_and_left_as_it_is() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.tensor([1.0, float("inf"), 2.0])
    optimizers = Optimizers([torch.optim.SGD([weight], lr=1.0)])
    assert optimizers.scale_and_clip(2.0, 1.0) == float("inf")
    assert weight.grad.tolist() == [1.0, float("inf"), 2.0]
    weight.grad = None
    assert str(optimizers.scale_and_clip(1.0, 1.0)) == "nan"


def test_adamw_alone_is_torchs_adamw_with_decay_on_the_matrices() -> None:
    """Five updates beside an AdamW that was put together by hand."""
    mine, theirs = tiny_model(), tiny_model()
    optimizers = make_optimizers(mine, settings(optimizer="adamw", lr=0.01, weight_decay=0.2))
    matrices = [p for name, p in theirs.named_parameters() if p.ndim == 2 and name.startswith("layers.")]
    others = [p for name, p in theirs.named_parameters() if not (p.ndim == 2 and name.startswith("layers."))]
    groups = [{"params": matrices, "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=ADAM_BETAS, eps=1e-10)
    for step in range(5):
        (batch,) = RandomRows().micro_batches(step)
        for model, update in ((mine, optimizers), (theirs, reference)):
            model.zero_grad()
            objective(model, batch).loss_sum.backward()
            update.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_every_groups_rate_follows_the_schedule() -> None:
    optimizers = make_optimizers(tiny_model(), settings(lr=0.01, matrix_lr=0.03))
    assert optimizers.set_lr(0.25) == pytest.approx(0.0075)  # the first group's: Muon's
    assert rates_of(optimizers) == pytest.approx([0.0025, 0.0075])
    optimizers.set_lr(1.0)
    assert rates_of(optimizers) == pytest.approx([0.01, 0.03])


def rates_of(optimizers: Optimizers) -> list[float]:
    return sorted({group["lr"] for part in optimizers.parts for group in part.param_groups})
