"""The loss at an output projection that is not trained: one pass over the vocabulary, and no logits kept.

A softmax over the vocabulary is attention with the projection's rows as keys and as values, so the gradient of the
hidden states can be gathered tile by tile along with the loss, as flash attention gathers its output
(arXiv:2205.14135): each tile of the projection is read once, multiplied twice while it is in the cache, and forgotten.
Fine-tuning a small model with a large vocabulary spends most of its time here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

TILE: Final = {"cpu": 1024, "cuda": 1 << 14}
"""Rows of the projection that are multiplied at once: on a CPU what stays in a core's cache."""
ROWS: Final = {"cpu": 1024, "cuda": 1 << 14}
"""Hidden states multiplied at once."""

Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def frozen_head_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, factors: Tensor | None, *, compiled: bool
) -> Tensor:
    """Σ −log softmax(hidden · weightᵀ + bias)[target] · factor; only `hidden` gets a gradient.

    Args:
        hidden: (N, D); within autocast it is multiplied in the autocast dtype.
        weight: (V, D), frozen.
        bias: (V,), frozen, or None.
        targets: (N,) integers.
        factors: (N,) or None for ones; get no gradient.
        compiled: whether to run what happens between the two products compiled.

    Returns:
        Scalar, float32 (float64 for float64 weights), nats.
    """
    nll = frozen_head_losses(hidden, weight, bias, targets, compiled=compiled)
    return (nll if factors is None else nll * factors).sum()


def frozen_head_losses(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, compiled: bool
) -> Tensor:
    """The terms of `frozen_head_nll`, `(N,)`, each with its own gradient: for losses of several tokens together."""
    step = _compiled_step() if compiled else online_softmax
    found: Tensor = FrozenHeadNll.apply(hidden, weight, bias, targets, step)
    return found


class FrozenHeadNll(torch.autograd.Function):
    """See `frozen_head_losses`; the gradient is made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, step: Step) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        nll = torch.empty(hidden.shape[0], dtype=wide, device=hidden.device)
        d_hidden = torch.empty(hidden.shape, dtype=wide, device=hidden.device)
        rows = ROWS.get(kind, 1 << 14)
        with torch.autocast(kind, enabled=False):
            for start in range(0, hidden.shape[0], rows):
                part = slice(start, start + rows)
                nll[part], d_hidden[part] = _one_pass(hidden[part].to(dtype), weight, bias, targets[part], step)
        ctx.save_for_backward(d_hidden)
        ctx.dtype = hidden.dtype
        return nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient with respect to the hidden states."""
        (d_hidden,) = ctx.saved_tensors
        return (d_hidden * grads[0][:, None]).to(ctx.dtype), None, None, None, None


def _one_pass(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, step: Step
) -> tuple[Tensor, Tensor]:
    """Loss (n,) and its gradient (n, D) for rows in the dtype that they are multiplied in, both in the wide dtype.

    The target's share of the gradient, p − 1, is taken at the end in the wide dtype: rounded among the others
    it would lose all its digits where the model is certain.
    """
    count, vocabulary = hidden.shape[0], weight.shape[0]
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    tile = TILE.get(hidden.device.type, 1 << 14)
    ordered, order = targets.sort()
    starts = torch.arange(0, vocabulary + tile, tile, device=targets.device)
    bounds = torch.searchsorted(ordered, starts.to(ordered.dtype)).tolist()
    largest = torch.full((count, 1), float("-inf"), dtype=wide, device=hidden.device)
    mass = torch.zeros_like(largest)
    mixed = torch.zeros(hidden.shape, dtype=wide, device=hidden.device)
    wanted = torch.empty(count, dtype=wide, device=hidden.device)
    for index, start in enumerate(range(0, vocabulary, tile)):
        keys = weight[start : start + tile].to(hidden.dtype)
        logits = F.linear(hidden, keys, None if bias is None else bias[start : start + tile].to(hidden.dtype))
        largest, mass, shrunk, shares = step(logits, largest, mass)
        if bounds[index] < bounds[index + 1]:
            who = order[bounds[index] : bounds[index + 1]]
            where = (who, targets[who] - start)
            wanted[who] = logits[where].to(wide)
            shares[where] = 0
        mixed.mul_(shrunk).add_(shares @ keys)
    nll = (largest + mass.log())[:, 0] - wanted
    miss = torch.expm1(-nll)[:, None]
    return nll, mixed.div_(mass).addcmul_(miss, weight[targets].to(wide))


def online_softmax(logits: Tensor, largest: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One tile of a softmax whose sum is not known yet.

    Args:
        logits: (n, T) of the tile.
        largest, mass: (n, 1) largest logit so far and Σ exp(logit − largest) so far, in the wide dtype.

    Returns:
        Both after the tile; the factor (n, 1) by which what was summed before shrinks; exp(logit − largest), (n, T),
        in the logits' dtype.
    """
    above = torch.maximum(largest, logits.amax(-1, keepdim=True).to(largest.dtype))
    shares = torch.sub(logits, above).exp()
    shrunk = torch.exp(largest - above)
    return above, mass * shrunk + shares.sum(-1, keepdim=True), shrunk, shares.to(logits.dtype)


@functools.cache
def _compiled_step() -> Step:
    return torch.compile(online_softmax, dynamic=True)
