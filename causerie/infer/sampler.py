"""From logits to the next token of every row of a batch.

A row's random number depends on its seed and the position alone, never on its neighbours: the same request gives
the same tokens alone and in a full batch (as far as the arithmetic of the logits does, which in float32 it does up to
rounding). One uniform number per token is turned into a token by the inverse of the cumulative distribution.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from causerie.infer.protocol import Sampling

CANDIDATES = 256
"""Likeliest tokens looked at first where top-k or top-p is set; more only if they fall short."""


@dataclass(frozen=True)
class Row:
    """What the sampler must know of one sequence."""

    sampling: Sampling
    seed: int
    position: int
    """Index of the token to be chosen in the sequence, prompt included."""
    counts: Mapping[int, int]
    """How often each token stands in the completion so far."""


@dataclass(frozen=True)
class Choice:
    """The chosen ids of all rows, and their log-probabilities where asked for (None elsewhere)."""

    ids: list[int]
    log_probs: list[float | None]


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of a seed at a position; 53 bits of BLAKE2b."""
    digest = blake2b(struct.pack("<QQ", seed & (2**64 - 1), position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def sample(logits: Tensor, rows: Sequence[Row]) -> Choice:
    """Choose the next token of every row.

    Args:
        logits: (n, V) float32; not changed.
        rows: n rows.
    """
    shaped = _with_penalties(logits, rows)
    sampled = [index for index, row in enumerate(rows) if not row.sampling.greedy]
    if len(sampled) == len(rows):
        ids = _draw(shaped, rows)
    else:
        ids = shaped.argmax(dim=-1).tolist()
        if sampled:
            drawn = _draw(shaped[sampled], [rows[index] for index in sampled])
            for index, token in zip(sampled, drawn, strict=True):
                ids[index] = token
    return Choice(ids, _log_probs(logits, ids, rows))


def _log_probs(logits: Tensor, ids: list[int], rows: Sequence[Row]) -> list[float | None]:
    wanted = [index for index, row in enumerate(rows) if row.sampling.logprobs]
    found: list[float | None] = [None] * len(rows)
    if wanted:
        some = logits if len(wanted) == len(rows) else logits[wanted]
        chosen = torch.tensor([ids[index] for index in wanted], device=logits.device)
        values = some.gather(1, chosen[:, None])[:, 0] - some.logsumexp(dim=-1)
        for index, value in zip(wanted, values.tolist(), strict=True):
            found[index] = value
    return found


def _with_penalties(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    shaped = logits
    for index, row in enumerate(rows):
        change = _penalties(row, logits.shape[1])
        if change:
            shaped = shaped.clone() if shaped is logits else shaped
            tokens = torch.tensor(list(change), device=logits.device)
            shaped[index, tokens] += torch.tensor(list(change.values()), device=logits.device)
    return shaped


def _penalties(row: Row, vocab_size: int) -> dict[int, float]:
    """What is added to the logits of some tokens: bias, and OpenAI's frequency and presence penalties."""
    sampling = row.sampling
    change = {token: bias for token, bias in sampling.logit_bias if 0 <= token < vocab_size}
    if sampling.frequency_penalty or sampling.presence_penalty:
        for token, count in row.counts.items():
            lowered = change.get(token, 0.0) - sampling.presence_penalty - sampling.frequency_penalty * count
            change[token] = lowered
    return change


def _draw(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    device = logits.device
    temperatures = [row.sampling.temperature for row in rows]
    if any(value != 1.0 for value in temperatures):
        logits = logits / torch.tensor(temperatures, device=device)[:, None]
    points = torch.tensor([uniform(row.seed, row.position) for row in rows], dtype=torch.float64, device=device)
    cut = [index for index, row in enumerate(rows) if row.sampling.top_k or row.sampling.top_p < 1]
    if not cut:
        return _draw_whole(logits, rows, points)
    ids = [0] * len(rows)
    whole = [index for index in range(len(rows)) if index not in set(cut)]
    if whole:
        drawn = _draw_whole(logits[whole], [rows[index] for index in whole], points[whole])
        for index, token in zip(whole, drawn, strict=True):
            ids[index] = token
    width = max(CANDIDATES, *(rows[index].sampling.top_k for index in cut))
    while cut:
        cut = _draw_cut(logits, rows, points, cut, width, ids)
        width *= 8
    return ids


def _draw_whole(logits: Tensor, rows: Sequence[Row], points: Tensor) -> list[int]:
    """Draw from all tokens, those below min-p times the likeliest left out."""
    probs = logits.softmax(dim=-1)
    if any(row.sampling.min_p for row in rows):
        floor = torch.tensor([row.sampling.min_p for row in rows], device=logits.device)[:, None]
        probs = torch.where(probs >= floor * probs.amax(dim=-1, keepdim=True), probs, 0.0)
    return _invert(probs, points).tolist()


def _draw_cut(
    logits: Tensor, rows: Sequence[Row], points: Tensor, cut: list[int], width: int, ids: list[int]
) -> list[int]:
    """Draw for the rows `cut` from their `width` likeliest tokens; returns the rows for which these are too few."""
    vocab, settings = logits.shape[1], [rows[index].sampling for index in cut]
    some = logits if len(cut) == len(rows) else logits[cut]
    best, tokens = some.topk(min(width, vocab), dim=-1)
    limit = _column([item.top_k or vocab for item in settings], logits)
    mass = (best - some.logsumexp(dim=-1, keepdim=True)).exp()
    mass = mass.masked_fill(torch.arange(mass.shape[1], device=logits.device) >= limit, 0.0)
    within = mass.cumsum(dim=-1)
    whole = torch.where(limit < vocab, within[:, -1:], 1.0)  # top-p is a share of what top-k left
    goal = whole * _column([item.top_p for item in settings], logits)
    kept = (within - mass < goal) & (mass >= mass[:, :1] * _column([item.min_p for item in settings], logits))
    kept[:, 0] = True
    picks = _invert(mass * kept, points[cut])
    chosen = tokens.gather(1, picks[:, None])[:, 0].tolist()
    enough = ((within[:, -1:] >= goal) | (limit <= width))[:, 0].tolist()
    for place, index in enumerate(cut):
        ids[index] = chosen[place]
    return [] if width >= vocab else [index for place, index in enumerate(cut) if not enough[place]]


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)[:, None]


def _invert(weights: Tensor, points: Tensor) -> Tensor:
    """The first index at which the running sum of `weights` (n, K) passes `points` (n,) of their total."""
    running = weights.cumsum(dim=-1, dtype=torch.float64)
    goals = points[:, None] * running[:, -1:]
    picks = torch.searchsorted(running, goals, right=True)[:, 0]
    return picks.clamp_max(weights.shape[1] - 1)
