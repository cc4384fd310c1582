"""Attention written as two matrix products: on CPUs, for rows of up to about a thousand tokens, the fastest there is.

torch's CPU flash kernel does not use the processor's bf16 products well: on Zen 5 it reached 70-85 GFLOP/s forward
and backward at 256 and 512 tokens, the products below 150-225 (`docs/log.md`). They hold the attention weights of a
layer, (B, H, T, T), so long rows are left to the flash kernel. Causal rows are attended block by block of queries, each
with the keys up to its end: what no query of the block can see is not computed.
"""

from __future__ import annotations

from typing import Final

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


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """Scaled dot-product attention with grouped heads.

    Args:
        q: (B, n_head, T, head_dim).
        k, v: (B, n_kv_head, T, head_dim).
        mask: broadcastable to (B, 1, T, T), true where a query sees a key; or None.
        causal: a token sees only itself and those before it; a mask given with it must say so too.
        scale: factor on the products.

    Returns:
        (B, n_head, T, head_dim) in the queries' dtype. Weights of what is not seen are exactly zero.
    """
    length = q.shape[2]
    if mask is None and causal:
        mask = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()[None, None]
    block = max(BLOCK, -(-length // MOST_BLOCKS))
    if not causal or mask is None or length <= block:
        return _attend_block(q, k, v, mask, scale)
    parts = []
    for start in range(0, length, block):
        end = min(start + block, length)
        seen = mask[..., start:end, :end]
        parts.append(_attend_block(q[:, :, start:end], k[:, :, :end], v[:, :, :end], seen, scale))
    return torch.cat(parts, dim=2)


def _attend_block(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Queries (B, n_head, Q, head_dim) over keys and values (B, n_kv_head, T, head_dim)."""
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    groups = heads // k.shape[1]
    scores = (q * scale).reshape(batch, -1, groups * queries, size) @ k.transpose(-1, -2)
    scores = scores.view(batch, -1, groups, queries, keys)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
    weights = torch.softmax(scores, -1, dtype=torch.float32).type_as(v)
    return (weights.view(batch, -1, groups * queries, keys) @ v).reshape(batch, heads, queries, size)
