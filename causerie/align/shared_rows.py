"""Several completions of one prompt in one row, the prompt computed once.

A row is `[prompt, completion 0, completion 1, ...]`. Each completion sees the prompt and itself, never a neighbour, and
its positions go on from the prompt's end, so its log-probability is exactly that of `[prompt, completion]` alone, at
the cost of P + C₀ + C₁ tokens instead of 2P + C₀ + C₁.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from causerie.model import CausalAttend, ModelShape, Transformer, chunked_loss

Ids = Sequence[int]
PROMPT = 0
PADDING = -1


@dataclass(frozen=True)
class Group:
    """A prompt and its completions, as token ids; no completion is empty."""

    prompt: Ids
    completions: tuple[Ids, ...]

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.prompt) + sum(map(len, self.completions))


class CompletionLogProbs(NamedTuple):
    """Log-probabilities of a batch's completions, group by group."""

    sums: Tensor
    """`(G,)` float32, summed over the tokens of each completion; differentiable."""
    tokens: Tensor
    """`(G,)` float32, tokens of each completion."""


def layout(groups: Sequence[Group]) -> dict[str, Tensor]:
    """Tensors of a batch of rows, padded at the end.

    Returns:
        `ids`, `positions`, `segment` (B, T): token, its position, and 0 for the prompt, k for completion k−1, −1 for
        padding. `row`, `source`, `target`, `owner` (N,) for the N completion tokens: row of the batch, column of the
        token that predicts it, its id, and the number of its completion in the batch. `lengths` (G,).
    """
    width = max(group.length for group in groups)
    ids = torch.zeros((len(groups), width), dtype=torch.long)
    positions = torch.zeros((len(groups), width), dtype=torch.long)
    segment = torch.full((len(groups), width), PADDING, dtype=torch.long)
    wanted: list[tuple[int, int, int, int]] = []
    lengths: list[int] = []
    for row, group in enumerate(groups):
        start = len(group.prompt)
        ids[row, :start] = torch.tensor(group.prompt)
        positions[row, :start] = torch.arange(start)
        segment[row, :start] = PROMPT
        for number, completion in enumerate(group.completions):
            end = start + len(completion)
            ids[row, start:end] = torch.tensor(completion)
            positions[row, start:end] = len(group.prompt) + torch.arange(len(completion))
            segment[row, start:end] = number + 1
            sources = [len(group.prompt) - 1, *range(start, end - 1)]
            wanted += [(row, source, int(id), len(lengths)) for source, id in zip(sources, completion, strict=True)]
            lengths.append(len(completion))
            start = end
    row_, source_, target_, owner_ = torch.tensor(wanted, dtype=torch.long).T.contiguous()
    found = {"ids": ids, "positions": positions, "segment": segment, "lengths": torch.tensor(lengths).float()}
    return {**found, "row": row_, "source": source_, "target": target_, "owner": owner_}


def group_attend(shape: ModelShape, segment: Tensor, positions: Tensor) -> CausalAttend:
    """Attention for the layout: causal, completions see the prompt and themselves; windows count positions."""
    at = torch.arange(segment.shape[1], device=segment.device)
    causal = at[:, None] >= at[None, :]
    same = segment[:, :, None] == segment[:, None, :]
    full = (causal & (same | (segment == PROMPT)[:, None, :]))[:, None]
    if not any(shape.local_layers):
        return CausalAttend(shape, full, None)
    near = (positions[:, :, None] - positions[:, None, :]) < shape.sliding_window
    return CausalAttend(shape, full, full & near[:, None])


def completion_log_probs(model: Transformer, batch: Mapping[str, Tensor]) -> CompletionLogProbs:
    """Log-probability of each completion given its prompt, for a batch made by `layout`."""
    attend = group_attend(model.shape, batch["segment"], batch["positions"])
    hidden = model(batch["ids"], positions=batch["positions"], attend=attend)
    nll = chunked_loss(model, hidden[batch["row"], batch["source"]], batch["target"])
    sums = torch.zeros(batch["lengths"].shape[0], dtype=nll.dtype, device=nll.device)
    return CompletionLogProbs(sums.index_add(0, batch["owner"], -nll), batch["lengths"])
