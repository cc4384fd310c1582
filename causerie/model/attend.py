"""Who sees whom: the seam between the model's layers and whatever does the attending.

Training passes `causal_attend`; the inference engine passes its block cache.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from causerie.model.dense_attention import added_mask, dense_attention, wants_dense
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


class SequenceAttend:
    """Attention over whole sequences, optionally within documents; made by `causal_attend` and `encoder_attend`."""

    def __init__(self, shape: ModelShape, full: Tensor | None, local: Tensor | None, *, causal: bool) -> None:
        self.causal = causal
        self.scale = shape.scale
        self.grouped = shape.n_head != shape.n_kv_head
        self.local_layers = tuple(bool(shape.window(layer)) for layer in range(shape.n_layer))
        self.full = full
        self.local = local
        self._added: dict[tuple[bool, torch.dtype], Tensor] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attend`."""
        local = self.local_layers[layer]
        mask = self.local if local else self.full
        if wants_dense(q, k):
            added = None if torch.compiler.is_compiling() else self._as_added(local, mask, q)
            return dense_attention(q, k, v, mask, self.causal, self.scale, added)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.causal and mask is None, scale=self.scale, enable_gqa=self.grouped
        )

    def _as_added(self, local: bool, mask: Tensor | None, q: Tensor) -> Tensor | None:
        """The mask as what is added to scores, 0 or minus infinity, made once for all layers: filling takes longer."""
        if mask is None and not self.causal:
            return None
        if (local, q.dtype) not in self._added:
            self._added[local, q.dtype] = added_mask(mask, q)
        return self._added[local, q.dtype]


def plain_attend(
    shape: ModelShape,
    doc_ids: Tensor | None = None,
    *,
    seq_len: int | None = None,
    device: torch.device | str | None = None,
) -> SequenceAttend:
    """The family's own attention: `causal_attend` for decoders, `encoder_attend` for encoders (see there)."""
    make = causal_attend if shape.row.causal else encoder_attend
    return make(shape, doc_ids, seq_len=seq_len, device=device)


def encoder_attend(
    shape: ModelShape,
    doc_ids: Tensor | None = None,
    *,
    seq_len: int | None = None,
    device: torch.device | str | None = None,
) -> SequenceAttend:
    """Attention for encoders: each token sees all of its document, in local layers half a window on either side.

    Args:
        shape: the model's shape.
        doc_ids: (B, T) integers; tokens see only tokens of the same document, padding being one of its own.
        seq_len: T, needed for models with local layers when `doc_ids` is None.
        device: where masks are built when `doc_ids` is None.
    """
    length = doc_ids.shape[1] if doc_ids is not None else seq_len
    reach = shape.sliding_window // 2
    windowed = any(shape.local_layers) and length is not None and length > reach + 1
    if doc_ids is None and not windowed:
        return SequenceAttend(shape, None, None, causal=False)
    assert length is not None
    at = torch.arange(length, device=doc_ids.device if doc_ids is not None else device)
    near = ((at[:, None] - at[None, :]).abs() <= reach)[None, None]
    if doc_ids is None:
        return SequenceAttend(shape, None, near, causal=False)
    full = (doc_ids[:, :, None] == doc_ids[:, None, :])[:, None]
    return SequenceAttend(shape, full, full & near if windowed else full, causal=False)


def causal_attend(
    shape: ModelShape,
    doc_ids: Tensor | None = None,
    *,
    seq_len: int | None = None,
    device: torch.device | str | None = None,
) -> SequenceAttend:
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
        return SequenceAttend(shape, None, None, causal=True)
    assert length is not None
    at = torch.arange(length, device=doc_ids.device if doc_ids is not None else device)
    back = at[:, None] - at[None, :]
    causal = back >= 0
    if doc_ids is None:
        return SequenceAttend(shape, None, (causal & (back < shape.sliding_window))[None, None], causal=True)
    full = ((doc_ids[:, :, None] == doc_ids[:, None, :]) & causal)[:, None]
    return SequenceAttend(shape, full, full & (back < shape.sliding_window) if windowed else full, causal=True)
