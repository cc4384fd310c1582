"""Losses over large vocabularies without holding all logits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from causerie.model.attend import Attend
from causerie.model.frozen_head import frozen_head_losses, frozen_head_nll
from causerie.model.products import fastest_product, transposed_product
from causerie.model.transformer import Transformer

CHUNK_LOGITS: Final = 1 << 25
"""Logits held at once by default: 128 MiB in float32."""


Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class _ChunkedNll(torch.autograd.Function):
    """-log softmax(hidden · weightᵀ + bias)[target], logits made chunk by chunk and made again for the gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int) -> Tensor:
        normaliser = torch.empty(hidden.shape[0], dtype=_wide(hidden.dtype), device=hidden.device)
        nll = torch.empty_like(normaliser)
        for start in range(0, hidden.shape[0], chunk):
            part = slice(start, start + chunk)
            logits = F.linear(hidden[part], weight, bias).to(normaliser.dtype)
            normaliser[part] = torch.logsumexp(logits, -1)
            nll[part] = normaliser[part] - logits.gather(-1, targets[part, None])[:, 0]
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        ctx.chunk = chunk
        return nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_weight = torch.zeros_like(weight, dtype=normaliser.dtype) if need_weight else None
        d_bias = torch.zeros_like(bias, dtype=normaliser.dtype) if need_bias else None
        for start in range(0, hidden.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            d_logits = F.linear(hidden[part], weight, bias).to(normaliser.dtype)
            d_logits = d_logits.sub_(normaliser[part, None]).exp_()
            d_logits.scatter_add_(-1, targets[part, None], -torch.ones_like(normaliser[part, None]))
            d_logits = d_logits.mul_(grads[0][part, None])
            if d_bias is not None:
                d_bias += d_logits.sum(0)
            d_logits = d_logits.to(weight.dtype)
            if d_hidden is not None:
                d_hidden[part] = d_logits @ weight
            if d_weight is not None:
                d_weight += d_logits.T @ hidden[part]
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        return d_hidden, d_weight, None if d_bias is None else d_bias.to(bias.dtype), None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class _SummedNll(torch.autograd.Function):
    """Σ −log softmax(hidden · weightᵀ + bias)[target] · factor, the gradient made along with it, chunk by chunk.

    Only exponentials go into the products; what divides them by their sums is a factor of a row, which the hidden
    states take instead. The weight's gradient is added up once a group of chunks.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        factors: Tensor | None,
        sizes: tuple[int, int],
        step: Step,
    ) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        narrow, projection = hidden.to(dtype), weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        total = torch.zeros((), dtype=_wide(dtype), device=hidden.device)
        d_hidden = torch.empty_like(narrow) if need_hidden else None
        d_weight = torch.zeros_like(weight, dtype=total.dtype) if need_weight else None
        d_bias = torch.zeros_like(bias, dtype=total.dtype) if need_bias and bias is not None else None
        count, (chunk, group) = hidden.shape[0], sizes
        scales = torch.empty(count, 1, dtype=total.dtype, device=hidden.device)
        kept = torch.empty(min(group, count), weight.shape[0], dtype=dtype, device=hidden.device)
        with torch.autocast(kind, enabled=False):
            for first in range(0, count, group):
                last = min(first + group, count)
                for start in range(first, last, chunk):
                    part = slice(start, min(start + chunk, last))
                    here = kept[start - first : part.stop - first]
                    logits = fastest_product(narrow[part], projection.T, out=here)
                    nll, scale = step(logits if offset is None else logits.add_(offset), targets[part], here)
                    scales[part] = scale if factors is None else scale * factors[part, None]
                    total += (nll if factors is None else nll * factors[part]).sum()
                    if d_hidden is not None:
                        d_hidden[part] = fastest_product(here, projection)
                if d_weight is not None:
                    scaled = (hidden[first:last] * scales[first:last]).to(dtype)
                    d_weight += transposed_product(kept[: last - first], scaled)
                if d_bias is not None:
                    d_bias += (kept[: last - first] * scales[first:last]).sum(0)
        ctx.save_for_backward(d_hidden, scales, d_weight, d_bias)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, scales, d_weight, d_bias = ctx.saved_tensors
        made = zip((d_hidden, d_weight, d_bias), (scales * grads[0], grads[0], grads[0]), ctx.dtypes, strict=True)
        found = [None if value is None else (value * factor).to(dtype) for value, factor, dtype in made]
        return (*found, None, None, None, None)


def _softmax_step(logits: Tensor, targets: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (n,) of a chunk, and the factors (n, 1) that make what it leaves in `out` the gradient of its logits.

    `out`, which may be `logits` itself, gets exp(logit − largest), at the target less the row's sum.
    """
    wide = logits.to(_wide(logits.dtype))
    largest = wide.amax(-1, keepdim=True)
    shares = torch.exp(wide - largest)
    mass = shares.sum(-1, keepdim=True)
    wanted = wide.gather(-1, targets[:, None]) - largest
    out.copy_(shares)
    out.scatter_(-1, targets[:, None], (wanted.exp() - mass).to(out.dtype))
    return (mass.log() - wanted)[:, 0], mass.reciprocal()


@functools.cache
def _compiled_step() -> Step:
    return torch.compile(_softmax_step, dynamic=False)


SUMMED_CHUNK: Final = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Logits made at once by `summed_loss`: on a CPU what stays in its cache."""
FEWEST_ROWS: Final = 64
"""Rows multiplied at once, at least: below, products with a large vocabulary wait for memory."""
GROUP: Final = 8
"""Chunks whose logits are kept together, for one product that makes the weight's gradient."""


def summed_loss(model: Transformer, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of `chunked_loss`, faster: the gradient is made along with the loss, so no logits are made twice.

    Args:
        model, hidden, targets, weights: as in `chunked_loss`; `weights` get no gradient.

    Returns:
        Scalar float32, nats.
    """
    if not torch.is_grad_enabled():
        return chunked_loss(model, hidden, targets, weights).sum()
    bias: Tensor | None = model.head_bias
    hidden, targets = model.head_input(hidden), targets.long()
    compiled = model._compiled_call_impl is not None
    if _frozen(model):
        return frozen_head_nll(hidden, model.head_weight, bias, targets, weights, compiled=compiled)
    rows = max(FEWEST_ROWS, SUMMED_CHUNK.get(hidden.device.type, 1 << 28) // model.head_weight.shape[0])
    step = _compiled_step() if compiled and hidden.shape[0] % rows == 0 else _softmax_step
    sizes = (rows, GROUP * rows)
    total: Tensor = _SummedNll.apply(hidden, model.head_weight, bias, targets, weights, sizes, step)
    return total


def _frozen(model: Transformer) -> bool:
    """Whether the output projection is not trained."""
    bias: Tensor | None = model.head_bias
    return not (model.head_weight.requires_grad or (bias is not None and bias.requires_grad))


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
        model: whose output projection (and head before it) is used.
        hidden: (N, D) final hidden states, only of the tokens that count.
        targets: (N,) token ids.
        weights: (N,) factors on the result, None for ones.
        chunk: rows of logits held at once; None for as many as `CHUNK_LOGITS` allows. When all rows fit in one
            chunk the logits are kept for the gradient and not made twice; nor are they at a frozen projection.

    Returns:
        (N,) nats per token, float32.
    """
    head: Tensor = model.head_weight
    bias: Tensor | None = model.head_bias
    hidden = model.head_input(hidden)
    rows = chunk or max(1, CHUNK_LOGITS // head.shape[0])
    targets = targets.long()
    if hidden.requires_grad and hidden.shape[0] > rows and _frozen(model):
        compiled = model._compiled_call_impl is not None
        nll = frozen_head_losses(hidden, head, bias, targets, compiled=compiled)
    elif hidden.shape[0] <= rows:
        nll = F.cross_entropy(F.linear(hidden, head, bias).to(_wide(hidden.dtype)), targets, reduction="none")
    else:
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            hidden, head = hidden.to(dtype), head.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        nll = _ChunkedNll.apply(hidden, head, bias, targets, rows)
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
