"""Completions that are only measured, not trained: read on from a prompt that was computed for another one.

KTO compares a row's own answer with a stranger's under the same prompt. The stranger's needs no gradient, so it goes
through no backward pass: the prompt and the own answer are one row, computed with gradient; the strangers are a second
row, computed without, behind the keys and values that the first left of each prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from causerie.align.shared_rows import CompletionLogProbs, GroupAttend
from causerie.model import Transformer, chunked_loss


class OwnAndStranger(NamedTuple):
    """Log-probabilities of groups of two completions, `(B,)` float32 each."""

    own: CompletionLogProbs
    """Of the first completions, differentiable."""
    strangers: Tensor
    """Sums of the second ones, without gradient."""


class ContinuedAttend:
    """Attention of a row of completions, each behind its own prompt's keys and values of an earlier pass."""

    def __init__(self, first: GroupAttend, lengths: list[int]) -> None:
        self.first, self.lengths = first, lengths

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values of one layer; q (1, H, T, Dh), k and v (1, Hkv, T, Dh) → (1, H, T, Dh)."""
        parts = zip(*(x.split(self.lengths, 2) for x in (q, k, v)), self.first.known[layer], strict=True)
        mixed = [
            self.first.mix(layer, asked, torch.cat((known[0], keys), 2), torch.cat((known[1], values), 2))
            for asked, keys, values, known in parts
        ]
        return torch.cat(mixed, 2)


def own_and_stranger(model: Transformer, batch: Mapping[str, Tensor]) -> OwnAndStranger:
    """Log-probabilities of a batch of groups of exactly two completions, made by `layout`.

    Equal to those of `completion_log_probs`, but no gradient flows through the second completion of a group.
    """
    apart = batch["segment"][0] == 2
    second = batch["owner"] % 2 == 1
    pieces = batch["pieces"].view(-1, 3, 2)
    place = torch.where(apart, (~apart).sum() + apart.cumsum(0), (~apart).cumsum(0)) - 1
    source = place[batch["source"]]
    attend = GroupAttend(model.shape, pieces[:, :2].reshape(-1, 2), keep=True)
    hidden = model(batch["ids"][:, ~apart], positions=batch["positions"][:, ~apart], attend=attend)[0]
    each = -chunked_loss(model, hidden[source[~second]], batch["target"][~second])
    own = _summed(each, batch["owner"][~second] // 2, len(pieces))
    with torch.no_grad():  # after the pass with gradient: autocast keeps the weights that were cast first
        lengths = pieces[:, 2, 1].tolist()
        more = model(
            batch["ids"][:, apart], positions=batch["positions"][:, apart], attend=ContinuedAttend(attend, lengths)
        )[0]
        states = torch.cat((hidden.detach(), more))[source[second]]
        each = -chunked_loss(model, states, batch["target"][second])
        strangers = _summed(each, batch["owner"][second] // 2, len(pieces))
    return OwnAndStranger(CompletionLogProbs(own, batch["lengths"][::2]), strangers)


def _summed(each: Tensor, owner: Tensor, count: int) -> Tensor:
    return torch.zeros(count, dtype=each.dtype, device=each.device).index_add(0, owner, each)
