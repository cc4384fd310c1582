"""Tiny random models and rows on which the closed-form checks compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from causerie.align.losses import PairLogProbs, dpo_loss
from causerie.align.shared_rows import Group, completion_log_probs, layout
from causerie.model import ModelShape, Transformer, init_model, shape_from_depth, token_log_probs

BETA: Final = 0.1
VOCABULARY: Final = 61

Found = tuple[str, float, float]
"""Name of a check, expected, got."""


def tiny_shape() -> ModelShape:
    """A two-layer Qwen3 shape."""
    return shape_from_depth(2, VOCABULARY)


def tiny_model(shake: int = 0) -> Transformer:
    """A random model whose every weight plays a part; models with different `shake` differ."""
    model = init_model(tiny_shape(), 0)
    generator = torch.Generator().manual_seed(shake)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_groups() -> list[Group]:
    """Four prompts with two answers each, of different lengths."""
    generator = torch.Generator().manual_seed(7)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    return [
        Group(ids(prompt), (ids(first), ids(second)))
        for prompt, first, second in ((5, 3, 6), (9, 4, 4), (3, 7, 1), (6, 2, 5))
    ]


def pair_log_probs(model: Transformer, groups: Sequence[Group], *, grad: bool = True) -> PairLogProbs:
    """Both sides' log-probabilities of each group."""
    with torch.set_grad_enabled(grad):
        found = completion_log_probs(model, layout(groups))
    sums, tokens = found.sums.view(-1, 2), found.tokens.view(-1, 2)
    return PairLogProbs(sums[:, 0], sums[:, 1], tokens[:, 0], tokens[:, 1])


def swap(pairs: PairLogProbs) -> PairLogProbs:
    """The same pairs with chosen and rejected exchanged."""
    return PairLogProbs(pairs.rejected, pairs.chosen, pairs.rejected_tokens, pairs.chosen_tokens)


def alone(model: Transformer, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """A completion's log-probability in a plain sequence of its own."""
    ids = torch.tensor([[*prompt, *completion]])
    mask = torch.tensor([[0] * len(prompt) + [1] * len(completion)])
    return token_log_probs(model, ids, mask).sum()


def completion_tokens(group: Group) -> int:
    """Tokens of a group's completions."""
    return sum(map(len, group.completions))


def leak(model: Transformer, group: Group) -> float:
    """Largest gradient of the second completion's log-probability with respect to the first one's embeddings."""
    batch = layout([group])
    seen: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    handle = model.embed_tokens.register_forward_hook(keep)
    try:
        completion_log_probs(model, batch).sums[1].backward()
    finally:
        handle.remove()
    model.zero_grad(set_to_none=True)
    gradient = seen[0].grad
    assert gradient is not None
    return float(gradient[batch["segment"] == 1].abs().max())


def grad_norm(model: Transformer, groups: Sequence[Group], *, parts: int = 1) -> float:
    """Norm of the gradient of the mean DPO loss over the groups, computed in so many micro-batches."""
    model.zero_grad(set_to_none=True)
    reference = pair_log_probs(tiny_model(), groups, grad=False)
    size = len(groups) // parts
    for start in range(0, len(groups), size):
        part = slice(start, start + size)
        fixed = PairLogProbs(*(value[part] for value in reference))
        (dpo_loss(pair_log_probs(model, groups[part]), fixed, beta=BETA).sum() / len(groups)).backward()
    found = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return float(torch.stack(found).norm())


def mean(values: Tensor) -> float:
    """The mean as a number."""
    return float(values.detach().mean())
