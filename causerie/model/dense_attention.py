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


@torch.library.custom_op("causerie::added_mask", mutates_args=())
def _kept_mask(mask: Tensor) -> Tensor:
    """`added_mask` in bf16, as one operator: compiled code reads booleans more slowly than it takes exponentials."""
    return torch.zeros(mask.shape, dtype=torch.bfloat16, device=mask.device).masked_fill_(~mask, float("-inf"))


@_kept_mask.register_fake
def _(mask: Tensor) -> Tensor:
    return torch.empty_like(mask, dtype=torch.bfloat16)


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
    if added is None and (causal or mask is not None):
        added = added_mask(mask, q) if written else _kept_mask(causal_mask(q) if mask is None else mask)
    block = max(BLOCK, -(-length // MOST_BLOCKS))
    if not causal or length <= block:
        block = length
    if not written:
        made: Tensor = FusedBlocks.apply(q, k, v, added, scale, block)
        return made
    parts = []
    for start in range(0, length, block):
        end = min(start + block, length)
        near = None if added is None else added[..., start:end, :end]
        parts.append(DenseBlock.apply(q[:, :, start:end], k[:, :, :end], v[:, :, :end], near, scale))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


class DenseBlock(torch.autograd.Function):
    """Attention as written: the scale inside the products, the mask added in place.

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


class FusedBlocks(torch.autograd.Function):
    """What `DenseBlock` computes, all blocks, in an order of operations that a compiler makes few passes of.

    The weights stay unnormalised: E = exp(S − largest) goes into the product, whose rows are then divided by the sums
    m of E. Backward, with g' = g / m and D = Σ g' o by rows: dv = Eᵀ g', dS = E (g' vᵀ − D), dq = scale · dS k and
    dk = scale · dSᵀ q: nothing is exponentiated, masked or normalised again (arXiv:2205.14135 has the same D).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, scale: float, block: int) -> Tensor:
        """See the class; `block` queries at once, each with the keys up to the block's end, or all in one block."""
        kept, parts = [], []
        for start in range(0, q.shape[2], block):
            end = min(start + block, q.shape[2])
            flat_q, (flat_k, flat_v) = _grouped(q[:, :, start:end], k), (_flat(part[:, :, :end]) for part in (k, v))
            scores = torch.bmm(flat_q, flat_k.mT).view(*_by_group(q, k), end - start, -1).float() * scale
            near = None if added is None else added[..., start:end, :end][:, None]
            if near is not None:
                scores = scores + near
            shares = torch.exp(scores - scores.amax(-1, keepdim=True))
            summed = shares if near is None else torch.maximum(shares, near)  # the same: one loop with the line above
            mass = summed.sum(-1, keepdim=True).view(*flat_q.shape[:2], 1)
            narrow = shares.to(v.dtype).view(*flat_q.shape[:2], -1)
            mixed = (torch.bmm(narrow, flat_v) / mass).to(v.dtype)
            kept += [flat_q, flat_k, flat_v, narrow, mass, mixed]
            parts.append(mixed.view(*q.shape[:2], end - start, -1))
        ctx.save_for_backward(*kept)
        ctx.shapes, ctx.scale, ctx.block = (q.shape, k.shape), scale, block
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to queries, keys and values."""
        (batch, heads, length, _), shape = ctx.shapes
        by_q, by_k, by_v = [], [], []
        for index, start in enumerate(range(0, length, ctx.block)):
            q, k, v, shares, mass, mixed = ctx.saved_tensors[6 * index : 6 * index + 6]
            end = min(start + ctx.block, length)
            given = grads[0][:, :, start:end].reshape(mixed.shape) / mass
            common = (given * mixed).sum(-1, keepdim=True)
            given = given.to(v.dtype)
            by_v.append(torch.bmm(shares.mT, given))
            d_scores = (shares * (torch.bmm(given, v.mT) - common) * ctx.scale).to(q.dtype)
            by_q.append(torch.bmm(d_scores, k).view(batch, heads, end - start, -1))
            by_k.append(torch.bmm(d_scores.mT, q))
        d_q = by_q[0] if len(by_q) == 1 else torch.cat(by_q, dim=2)
        return d_q, _joined(by_k, ctx.block).view(shape), _joined(by_v, ctx.block).view(shape), None, None, None


def _by_group(q: Tensor, k: Tensor) -> tuple[int, int, int]:
    return q.shape[0], k.shape[1], q.shape[1] // k.shape[1]


def _grouped(q: Tensor, k: Tensor) -> Tensor:
    """Queries (B, n_head, Q, Dh) beside those that share their keys: (B · n_kv_head, groups · Q, Dh)."""
    return q.reshape(k.shape[0] * k.shape[1], -1, q.shape[-1])


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[2:])


def _joined(parts: list[Tensor], block: int) -> Tensor:
    """Sum of gradients of the first keys, (N, block or 2 blocks or ..., Dh), as wide as the longest."""
    if len(parts) == 1:
        return parts[0]
    pieces = []
    for index in range(len(parts)):
        piece = slice(index * block, (index + 1) * block)
        total = parts[index][:, piece].float()
        for later in parts[index + 1 :]:
            total = total + later[:, piece]
        pieces.append(total.to(parts[index].dtype))
    return torch.cat(pieces, dim=1)
