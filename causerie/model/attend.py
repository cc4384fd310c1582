"""Who sees whom: the seam between the model's layers and whatever does the attending.

Training passes `causal_attend`; the inference engine passes its block cache.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from causerie.model.shape import ModelShape


class Attend(Protocol):
    """Attends for one layer."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values.

        Args:
            layer: index of the calling layer.
            q: (B, n_head, T, head_dim), normed and rotated.
            k, v: (B, n_kv_head, T, head_dim), of the same tokens.

        Returns:
            (B, n_head, T, head_dim), in the queries' dtype.
        """
        ...


class CausalAttend:
    """Causal attention over whole sequences, optionally within documents; made by `causal_attend`."""

    def __init__(self, shape: ModelShape, full: Tensor | None, local: Tensor | None) -> None:
        self.scale = shape.scale
        self.grouped = shape.n_head != shape.n_kv_head
        self.local_layers = tuple(bool(shape.window(layer)) for layer in range(shape.n_layer))
        self.full = full
        self.local = local

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attend`."""
        mask = self.local if self.local_layers[layer] else self.full
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=self.grouped
        )


def causal_attend(
    shape: ModelShape,
    doc_ids: Tensor | None = None,
    *,
    seq_len: int | None = None,
    device: torch.device | str | None = None,
) -> CausalAttend:
    """Attention for training and scoring: each token sees itself and what came before it.

    Masked weights are exactly zero, and so are gradients across documents. Without documents and within the
    window no mask is built and the kernels' causal fast path runs. Padding is a document of its own.

    Args:
        shape: the model's shape; its windows are kept in local layers.
        doc_ids: (B, T) integers; tokens see only tokens of the same document.
        seq_len: T, needed for models with local layers when `doc_ids` is None.
        device: where masks are built when `doc_ids` is None.
    """
    length = doc_ids.shape[1] if doc_ids is not None else seq_len
    windowed = any(shape.local_layers) and length is not None and length > shape.sliding_window
    if doc_ids is None and not windowed:
        return CausalAttend(shape, None, None)
    assert length is not None
    at = torch.arange(length, device=doc_ids.device if doc_ids is not None else device)
    back = at[:, None] - at[None, :]
    causal = back >= 0
    if doc_ids is None:
        return CausalAttend(shape, None, causal & (back < shape.sliding_window))
    full = ((doc_ids[:, :, None] == doc_ids[:, None, :]) & causal)[:, None]
    return CausalAttend(shape, full, full & (back < shape.sliding_window) if windowed else full)
