"""Attention written as two matrix products: on CPUs, for rows of up to about a thousand tokens, the fastest there is.

torch's CPU flash kernel does not use the processor's bf16 products well: on Zen 5 it reached 70-85 GFLOP/s forward
and backward at 256 and 512 tokens, the products below 150-225 (`docs/log.md`). They hold the attention weights of a
layer, (B, H, T, T), so long rows are left to the flash kernel. Causal rows are attended block by block of queries, each
with the keys up to its end: what no query of the block can see is not computed.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

LONGEST: Final = 1024
"""Rows up to this length are attended densely in training on CPUs."""
BLOCK: Final = 128
MOST_BLOCKS: Final = 4
"""Queries of a block at least, and blocks of a row at most: products below lose speed, more make compiling slow."""


def wants_dense(q: Tensor, k: Tensor) -> bool:
    """Whether `dense_attention` should be used: in training, on a CPU, for short rows."""
    return q.device.type == "cpu" and q.requires_grad and q.shape[-2] == k.shape[-2] <= LONGEST


def added_mask(mask: Tensor | None, q: Tensor) -> Tensor:
    """What is added to scores, 0 where a query sees a key and minus infinity where not, in the queries' dtype.

    Args:
        mask: (B or 1, 1, T, T) booleans; None is causal.
        q: (B, n_head, T, head_dim).
    """
    if mask is None:
        mask = causal_mask(q)
    return torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))


def causal_mask(q: Tensor) -> Tensor:
    """(1, 1, T, T): a token sees itself and those before it."""
    return torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()[None, None]


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, added: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention with grouped heads.

    Args:
        q: (B, n_head, T, head_dim).
        k, v: (B, n_kv_head, T, head_dim).
        mask: broadcastable to (B, 1, T, T), true where a query sees a key; or None.
        causal: a token sees only itself and those before it; a mask given with it must say so too.
        scale: factor on the products.
        added: the same mask as `added_mask` makes it, where attention runs as written (not compiled).

    Returns:
        (B, n_head, T, head_dim) in the queries' dtype. Weights of what is not seen are exactly zero.
    """
    length = q.shape[2]
    written = not torch.compiler.is_compiling()
    if mask is None and causal and not written:
        mask = causal_mask(q)
    if written and added is None and (causal or mask is not None):
        added = added_mask(mask, q)
    hides = added if written else mask
    attend = DenseBlock.apply if written else _attend_block
    block = max(BLOCK, -(-length // MOST_BLOCKS))
    if not causal or hides is None or length <= block:
        made: Tensor = attend(q, k, v, hides, scale)
        return made
    parts = []
    for start in range(0, length, block):
        end = min(start + block, length)
        parts.append(attend(q[:, :, start:end], k[:, :, :end], v[:, :, :end], hides[..., start:end, :end], scale))
    return torch.cat(parts, dim=2)


def _attend_block(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Queries (B, n_head, Q, head_dim) over keys and values (B, n_kv_head, T, head_dim), for a compiler to fuse."""
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    groups = heads // k.shape[1]
    scores = (q * scale).reshape(batch, -1, groups * queries, size) @ k.transpose(-1, -2)
    scores = scores.view(batch, -1, groups, queries, keys)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
    weights = torch.softmax(scores, -1, dtype=torch.float32).type_as(v)
    return (weights.view(batch, -1, groups * queries, keys) @ v).reshape(batch, heads, queries, size)


class DenseBlock(torch.autograd.Function):
    """What `_attend_block` computes, as written: the scale inside the products, the mask added in place.

    With weights P = softmax(S) and S = scale · q kᵀ: dv = Pᵀ g, dS = P (g vᵀ − Σ P (g vᵀ)), dq = scale · dS k and dk =
    scale · dSᵀ q.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, scale: float) -> Tensor:
        """See the class."""
        batch, heads, queries, size = q.shape
        kv_heads, keys = k.shape[1], k.shape[2]
        flat_q = q.reshape(batch * kv_heads, -1, size)
        flat_k, flat_v = (part.reshape(batch * kv_heads, keys, size) for part in (k, v))
        scores = _scaled(flat_q, flat_k.transpose(1, 2), scale)
        if added is not None:
            scores.view(batch, heads, queries, keys).add_(added)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype)
        ctx.save_for_backward(flat_q, flat_k, flat_v, weights)
        ctx.shapes, ctx.scale = (q.shape, k.shape, v.shape), scale
        return torch.bmm(weights, flat_v).view(batch, heads, queries, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to queries, keys and values."""
        q, k, v, weights = ctx.saved_tensors
        given = grads[0].reshape(q.shape)
        d_v = torch.bmm(weights.transpose(1, 2), given)
        d_weights = torch.bmm(given, v.transpose(1, 2))
        d_scores = torch._softmax_backward_data(d_weights.float(), weights.float(), -1, torch.float32).to(q.dtype)
        d_q = _scaled(d_scores, k, ctx.scale)
        d_k = _scaled(d_scores.transpose(1, 2), q, ctx.scale)
        return (*(d.view(shape) for d, shape in zip((d_q, d_k, d_v), ctx.shapes, strict=True)), None, None)


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a b of a batch of matrices."""
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)
