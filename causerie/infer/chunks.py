"""Attention of a chunk of a prompt: queries that are the last positions of what they see.

Written as matrix products, a block of queries at a time over the keys up to its end (and from the beginning of its
window), so that what nobody in a block may see is not computed, and no mask of the whole is ever made. torch's own
kernel does not use the processor's bfloat16 products: for 512 tokens of Gemma 3 270M it took 11 ms a layer, this 2.4.
"""

from __future__ import annotations

import functools
from typing import Final

import torch
from torch import Tensor

BLOCK: Final = 128
"""Queries answered at once: fewer make the products slow, more compute what the mask throws away."""


def attend_chunk(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """Causal attention of the last T of S positions.

    Args:
        q: (1, H, T, Dh).
        k, v: (1, Hkv, S, Dh), S at least T; the queries are those of the last T positions.
        scale: factor of the dot products.
        window: how many positions back a query may look, itself included; None for all.

    Returns:
        (1, H, T, Dh).
    """
    n_head, length, size = q.shape[1:]
    n_kv_head, total = k.shape[1:3]
    folded = q[0].unflatten(0, (n_kv_head, -1))  # (Hkv, G, T, Dh)
    turned, values = k[0].contiguous().transpose(1, 2), v[0].contiguous()
    later = _later(q.dtype, q.device)
    # In memory the positions come first, as the next product wants them.
    out = q.new_empty(length, n_kv_head, n_head // n_kv_head, size).permute(1, 2, 0, 3)
    for start in range(0, length, BLOCK):
        count = min(BLOCK, length - start)
        end = total - length + start + count
        first = 0 if window is None else max(0, end - count - window + 1)
        asked = folded[:, :, start : start + count].flatten(1, 2)
        # The factor is applied within the product, before its rounding.
        scores = torch.baddbmm(asked.new_empty(()), asked, turned[:, :, first:end], beta=0, alpha=scale)
        scores = scores.unflatten(1, (-1, count))
        scores[..., end - count - first :] += later[:count, :count]
        if window is not None and end - first > window:  # keys that the first query of the block still sees
            gone = end - first - window
            scores[..., :gone] += later[count - gone - 1 : count - 1, :count].T[:, :gone]
        weights = torch.softmax(scores, dim=-1).flatten(1, 2)
        out[:, :, start : start + count] = torch.bmm(weights, values[:, first:end]).unflatten(1, (-1, count))
    return out.flatten(0, 1)[None]


@functools.cache
def _later(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(BLOCK, BLOCK): -inf above the diagonal, 0 elsewhere. Adding it takes a third of what filling takes."""
    return torch.full((BLOCK, BLOCK), float("-inf"), dtype=dtype, device=device).triu_(1)
