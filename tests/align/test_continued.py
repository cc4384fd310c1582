"""KTO's strangers, read on without gradient: against separate sequences, transformers, and the plain way."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from causerie.align import Group, KtoConfig, kto_kl, kto_loss, kto_objective, layout, score_groups
from causerie.align.continued import own_and_stranger
from causerie.model import Transformer, load_model, token_log_probs

GROUPS = [
    Group((5, 6, 7, 8), ((9, 10, 11), (12, 13))),
    Group((20,), ((21,), (22, 23, 24, 25, 26))),
    Group((30, 31, 32, 33, 34, 35), ((36, 37), (38,))),
]
LIKED = torch.tensor([True, False, True])
WEIGHT = torch.tensor([1.0, 0.5, 2.0])


@pytest.fixture
def model(tiny: Path) -> Transformer:
    return load_model(tiny)


def alone(model: Transformer, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """Log-probability of an answer in a sequence of its own."""
    ids, mask = torch.tensor([[*prompt, *answer]]), torch.tensor([[0] * len(prompt) + [1] * len(answer)])
    return token_log_probs(model, ids, mask).sum()


def batch_of(groups: list[Group], reference: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**layout(groups), "reference": reference, "liked": LIKED, "weight": WEIGHT}


def test_log_probs_are_those_of_transformers(tiny: Path, model: Transformer) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    found = own_and_stranger(model, layout(GROUPS))
    for row, group in enumerate(GROUPS):
        for answer, got in zip(group.completions, (found.own.sums[row], found.strangers[row]), strict=True):
            ids = torch.tensor([[*group.prompt, *answer]])
            with torch.no_grad():
                logs = theirs(ids).logits[0].log_softmax(-1)
            first = len(group.prompt)
            wanted = sum(float(logs[first + place - 1, token]) for place, token in enumerate(answer))
            assert float(got.detach()) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_objective_and_gradient_are_those_of_separate_sequences(model: Transformer, shift: float) -> None:
    """Both where the KL estimate is above 0 and where it is cut at 0."""
    config = KtoConfig(model=Path(), preferences=Path(), beta=0.3, nll_weight=0.2)
    reference = score_groups(model, GROUPS) - shift
    parts = kto_objective(config, 1.5, 0.7)(model, batch_of(GROUPS, reference))
    own = torch.stack([alone(model, g.prompt, g.completions[0]) for g in GROUPS])
    with torch.no_grad():
        strangers = torch.stack([alone(model, g.prompt, g.completions[1]) for g in GROUPS])
    kl = kto_kl(strangers, reference[:, 1])
    assert float(kl) == pytest.approx(max(0.0, shift), abs=1e-4)
    rows = kto_loss(own, reference[:, 0], LIKED, kl, beta=0.3, liked_weight=1.5, disliked_weight=0.7)
    lengths = torch.tensor([len(g.completions[0]) for g in GROUPS])
    wanted = ((rows + 0.2 * -own / lengths * LIKED) * WEIGHT).sum()
    torch.testing.assert_close(parts.loss_sum, wanted, atol=1e-4, rtol=1e-5)
    assert float(parts.n_tokens) == pytest.approx(3.5)
    ours = torch.autograd.grad(parts.loss_sum, list(model.parameters()))
    theirs = torch.autograd.grad(wanted, list(model.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_a_stranger_changes_the_gradient_through_the_kl_term_only(model: Transformer) -> None:
    """With the estimate cut at 0, other strangers leave loss and gradient as they are."""
    config = KtoConfig(model=Path(), preferences=Path())
    found = []
    for strange in ((12, 13), (40, 41, 42, 43)):
        groups = [Group(g.prompt, (g.completions[0], strange)) for g in GROUPS]
        parts = kto_objective(config, 1.0, 1.0)(model, batch_of(groups, score_groups(model, groups) + 3.0))
        found.append((parts.loss_sum, torch.autograd.grad(parts.loss_sum, list(model.parameters()))))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_random_groups_agree_with_separate_sequences(model: Transformer) -> None:
    rng = random.Random(4)

    def ids(longest: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 200) for _ in range(rng.randint(1, longest)))

    groups = [Group(ids(20), (ids(9), ids(9))) for _ in range(12)]
    found = own_and_stranger(model, layout(groups))
    with torch.no_grad():
        wanted = torch.tensor([[float(alone(model, g.prompt, c)) for c in g.completions] for g in groups])
    torch.testing.assert_close(found.own.sums.detach(), wanted[:, 0], atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(found.strangers, wanted[:, 1], atol=2e-4, rtol=1e-5)
    assert found.own.tokens.tolist() == [len(g.completions[0]) for g in groups]


def test_bf16_autocast_keeps_the_gradient_of_every_weight(model: Transformer) -> None:
    """Weights that autocast has cast inside no_grad would lose their gradient, if the order of the passes were wrong."""
    config = KtoConfig(model=Path(), preferences=Path())
    reference = score_groups(model, GROUPS)
    with torch.autocast("cpu", torch.bfloat16):
        parts = kto_objective(config, 1.0, 1.0)(model, batch_of(GROUPS, reference))
    parts.loss_sum.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
