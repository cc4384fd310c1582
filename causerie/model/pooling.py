"""One vector for a text: hidden states pooled and normed, for embeddings and classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from causerie.core import CauserieError
from causerie.model.attend import plain_attend
from causerie.model.transformer import Transformer

Pooling = Literal["mean", "last", "first"]


def pool_hidden(hidden: Tensor, doc_ids: Tensor, n_docs: int, how: Pooling = "mean") -> Tensor:
    """Vectors of packed documents.

    Args:
        hidden: (B, T, D) hidden states after the final norm.
        doc_ids: (B, T) integers: which document a token belongs to; those outside 0 … n_docs - 1 are padding.
        n_docs: documents in the batch; each has at least one token, in one row, side by side.
        how: the mean over a document's tokens, its last token (decoders), or its first (BERT's [CLS]).

    Returns:
        (n_docs, D) float32, of length 1.
    """
    flat, owner = hidden.flatten(0, 1).float(), doc_ids.flatten().long()
    seen = (owner >= 0) & (owner < n_docs)
    flat, owner = flat[seen], owner[seen]
    if how == "mean":
        sums = torch.zeros(n_docs, flat.shape[1], device=flat.device).index_add(0, owner, flat)
        return F.normalize(sums, dim=-1)  # the length falls out, so the sum will do
    at = torch.arange(len(owner), device=owner.device)
    start = len(owner) if how == "first" else -1
    place = torch.full((n_docs,), start, device=owner.device)
    place = place.scatter_reduce(0, owner, at, "amin" if how == "first" else "amax")
    return F.normalize(flat[place], dim=-1)


@torch.no_grad()
def embed_rows(
    model: Transformer, rows: Sequence[Sequence[int]], how: Pooling = "mean", *, batch_tokens: int = 8192
) -> Tensor:
    """Vectors of texts, by any family; many texts are run packed, each seeing only itself.

    Args:
        model: a decoder or an encoder.
        rows: token ids of each text, special tokens included where the model wants them.
        how: see `pool_hidden`.
        batch_tokens: tokens run at once.

    Returns:
        (len(rows), D) float32 on the model's device, of length 1, in the order of `rows`.

    Raises:
        CauserieError: CAU-3009 when a text is empty or longer than the model.
    """
    device, longest = model.embed_tokens.weight.device, model.shape.max_seq_len
    for number, row in enumerate(rows):
        if not 0 < len(row) <= longest:
            cause = f"text {number} has {len(row)} tokens; from 1 to {longest} can be embedded"
            raise CauserieError("CAU-3009", cause, where="embed_rows", fix="cut long texts, leave empty ones out")
    found: list[Tensor] = []
    for batch in _batches(rows, batch_tokens):
        ids = torch.tensor([[token for row in batch for token in row]], device=device)
        owner = torch.cat([torch.full((len(row),), number) for number, row in enumerate(batch)])[None].to(device)
        places = torch.cat([torch.arange(len(row)) for row in batch])[None].to(device)
        hidden = model(ids, positions=places, attend=plain_attend(model.shape, owner))
        found.append(pool_hidden(hidden, owner, len(batch), how))
    return torch.cat(found) if found else torch.zeros(0, model.shape.n_embd, device=device)


def _batches(rows: Sequence[Sequence[int]], tokens: int) -> list[list[Sequence[int]]]:
    batches: list[list[Sequence[int]]] = []
    room = 0
    for row in rows:
        if not batches or len(row) > room:
            batches.append([])
            room = tokens
        batches[-1].append(row)
        room -= len(row)
    return batches
