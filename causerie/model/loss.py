"""Losses over large vocabularies without holding all logits."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from causerie.model.attend import Attend
from causerie.model.transformer import Transformer

CHUNK_LOGITS: Final = 1 << 25
"""Logits held at once by default: 128 MiB in float32."""


class _ChunkedNll(torch.autograd.Function):
    """-log softmax(hidden · weightᵀ)[target], logits made chunk by chunk and made again for the gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        normaliser = torch.empty(hidden.shape[0], dtype=_wide(hidden.dtype), device=hidden.device)
        nll = torch.empty_like(normaliser)
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, start + chunk)
            logits = F.linear(hidden[part], weight).to(normaliser.dtype)
            normaliser[part] = torch.logsumexp(logits, -1)
            nll[part] = normaliser[part] - logits.gather(-1, targets[part, None])[:, 0]
        ctx.save_for_backward(hidden, weight, targets, normaliser)
        ctx.chunk = chunk
        return nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets, normaliser = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_weight = torch.zeros_like(weight, dtype=normaliser.dtype) if need_weight else None
        for start in range(0, hidden.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            d_logits = F.linear(hidden[part], weight).to(normaliser.dtype)
            d_logits = d_logits.sub_(normaliser[part, None]).exp_()
            d_logits.scatter_add_(-1, targets[part, None], -torch.ones_like(normaliser[part, None]))
            d_logits = d_logits.mul_(grads[0][part, None]).to(weight.dtype)
            if d_hidden is not None:
                d_hidden[part] = d_logits @ weight
            if d_weight is not None:
                d_weight += d_logits.T @ hidden[part]
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def chunked_loss(
    model: Transformer,
    hidden: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Negative log-likelihood of each target, with exact gradients, never holding more than a chunk of logits.

    Within autocast the projection runs in the autocast dtype; sums and exponentials are float32.

    Args:
        model: whose output projection is used.
        hidden: (N, D) final hidden states, only of the tokens that count.
        targets: (N,) token ids.
        weights: (N,) factors on the result, None for ones.
        chunk: rows of logits held at once; None for as many as `CHUNK_LOGITS` allows. When all rows fit in one
            chunk the logits are kept for the gradient and not made twice.

    Returns:
        (N,) nats per token, float32.
    """
    head = model.head_weight
    rows = chunk or max(1, CHUNK_LOGITS // head.shape[0])
    targets = targets.long()
    if hidden.shape[0] <= rows:
        nll = F.cross_entropy(F.linear(hidden, head).to(_wide(hidden.dtype)), targets, reduction="none")
    else:
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            hidden, head = hidden.to(dtype), head.to(dtype)
        nll = _ChunkedNll.apply(hidden, head, targets, rows)
    return nll if weights is None else nll * weights


def token_log_probs(
    model: Transformer,
    ids: Tensor,
    mask: Tensor,
    *,
    positions: Tensor | None = None,
    attend: Attend | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Log-probability of each masked token given those before it.

    Args:
        model: the model, run once over `ids`.
        ids: (B, T) token ids; padding at the end needs no attention mask.
        mask: (B, T), non-zero where a log-probability is wanted; the first token of a row never has one.
        positions, attend: as in `Transformer.forward`.
        chunk: as in `chunked_loss`.

    Returns:
        (B, T) float32, aligned with `ids`: zero where not wanted. Differentiable.
    """
    hidden = model(ids, positions=positions, attend=attend)
    wanted = mask[:, 1:].bool()
    nll = chunked_loss(model, hidden[:, :-1][wanted], ids[:, 1:][wanted], chunk=chunk)
    out = torch.zeros(ids.shape, dtype=nll.dtype, device=ids.device)
    out[:, 1:][wanted] = -nll
    return out
