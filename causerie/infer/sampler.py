"""From logits to the next token of every row of a batch.

A row's random number depends on its seed and the position alone, never on its neighbours: the same request gives
the same tokens alone and in a full batch (as far as the arithmetic of the logits does, which in float32 it does up to
rounding). One uniform number per token is turned into a token by the inverse of the cumulative distribution.

Nothing here sorts the vocabulary: the likeliest tokens are found through the largest of every 64 logits, and the
cumulative distribution is walked in two levels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor

from causerie.infer.request import Alternative, Sampling

CANDIDATES = 256
"""Likeliest tokens looked at first where top-p is set; more only if they fall short."""
CHUNK = 64
"""Logits of which first only the largest, or only the sum, is looked at."""


@dataclass(frozen=True)
class Row:
    """What the sampler must know of one sequence."""

    sampling: Sampling
    seed: int
    position: int
    """Index of the token to be chosen in the sequence, prompt included."""
    counts: Mapping[int, int] = field(default_factory=dict)
    """How often each token stands in the completion so far; needed only for penalties."""
    seen: Sequence[int] = ()
    """The sequence so far; needed only for the repetition penalty."""
    allowed: Tensor | None = None
    """(V,) bool: what the grammar allows; None allows all."""
    barred: Sequence[int] = ()
    """Ids that must not come yet."""

    @property
    def shaped(self) -> bool:
        """Whether its logits are changed before the draw."""
        item = self.sampling
        penalties = item.frequency_penalty or item.presence_penalty or item.repetition_penalty != 1
        return bool(penalties or item.logit_bias or self.barred) or self.allowed is not None


@dataclass(frozen=True)
class Choice:
    """The chosen ids of all rows, their log-probabilities (None where not asked for), and the likeliest tokens'."""

    ids: list[int]
    log_probs: list[float | None]
    top: list[list[Alternative]] = field(default_factory=list)


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of a seed at a position; 53 bits of BLAKE2b."""
    digest = blake2b(struct.pack("<QQ", seed & (2**64 - 1), position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def sample(logits: Tensor, rows: Sequence[Row]) -> Choice:
    """Choose the next token of every row.

    Args:
        logits: (n, V) float32; used up.
        rows: n rows.
    """
    wanted = [index for index, row in enumerate(rows) if row.sampling.logprobs]
    raw = logits[wanted] if wanted else None  # a copy: what follows changes the logits in place
    for index, row in enumerate(rows):
        if row.shaped:
            _shape(logits[index], row)
    drawn = [index for index, row in enumerate(rows) if not row.sampling.greedy]
    if len(drawn) == len(rows):
        ids = _draw(logits, rows)
    else:
        ids = largest(logits).tolist()
        if drawn:
            for index, token in zip(drawn, _draw(logits[drawn], [rows[index] for index in drawn]), strict=True):
                ids[index] = token
    log_probs: list[float | None] = [None] * len(rows)
    top: list[list[Alternative]] = [[] for _ in rows]
    if raw is not None:
        most = max(rows[index].sampling.top_logprobs for index in wanted)
        scores, best = log_probs_of(raw, [ids[index] for index in wanted], most)
        for index, score, some in zip(wanted, scores, best, strict=True):
            log_probs[index], top[index] = score, some[: rows[index].sampling.top_logprobs]
    return Choice(ids, log_probs, top)


def log_probs_of(logits: Tensor, ids: Sequence[int], n_top: int) -> tuple[list[float], list[list[Alternative]]]:
    """Log-probabilities of one id per row of `logits` (n, V), and of the `n_top` likeliest ids of each row."""
    whole = log_total(logits)
    chosen = torch.tensor(ids, device=logits.device)[:, None]
    scores = (logits.gather(1, chosen) - whole)[:, 0].tolist()
    if not n_top:
        return scores, [[] for _ in ids]
    values, tokens = likeliest(logits, n_top)
    pairs = zip(tokens.tolist(), (values - whole).tolist(), strict=True)
    return scores, [list(zip(some, theirs, strict=True)) for some, theirs in pairs]


def log_total(logits: Tensor) -> Tensor:
    """`logsumexp` of every row, (n, V) → (n, 1), in two levels: a single row's sum would be shared among the threads,
    and a row alone would get other bits than beside others.
    """
    vocab = logits.shape[1]
    if vocab % CHUNK:
        logits = torch.nn.functional.pad(logits, (0, -vocab % CHUNK), value=float("-inf"))
    return logits.unflatten(1, (-1, CHUNK)).logsumexp(dim=-1).logsumexp(dim=-1, keepdim=True)


def largest(logits: Tensor) -> Tensor:
    """Index of the largest logit of every row, (n, V) → (n,)."""
    n, vocab = logits.shape
    even = vocab // CHUNK * CHUNK
    if even != vocab or vocab < 64 * CHUNK:
        return logits.argmax(dim=-1)
    chunks = logits.view(n, -1, CHUNK)
    first = chunks.amax(dim=-1).argmax(dim=-1)
    inside = chunks[torch.arange(n, device=logits.device), first].argmax(dim=-1)
    return first * CHUNK + inside


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest logits of every row and their indices, largest first, as `topk`: each (n, count).

    They lie in the `count` chunks with the largest maxima, so only those are sorted.
    """
    n, vocab = logits.shape
    count = min(count, vocab)
    even = vocab // CHUNK * CHUNK
    if count * CHUNK * 2 > vocab:
        return logits.topk(count, dim=-1)
    chunks = logits[:, :even].unflatten(1, (-1, CHUNK))
    places = chunks.amax(dim=-1).topk(count, dim=-1, sorted=False).indices
    some = chunks.gather(1, places[:, :, None].expand(-1, -1, CHUNK)).flatten(1)
    indices = (places[:, :, None] * CHUNK + torch.arange(CHUNK, device=logits.device)).flatten(1)
    if even < vocab:
        rest = torch.arange(even, vocab, device=logits.device).expand(n, -1)
        some, indices = torch.cat((some, logits[:, even:]), dim=1), torch.cat((indices, rest), dim=1)
    values, picks = some.topk(count, dim=-1)
    return values, indices.gather(1, picks)


def _shape(logits: Tensor, row: Row) -> None:
    """Penalties, bias, grammar and barred ids, in place on one row's logits (V,)."""
    sampling, vocab = row.sampling, len(logits)
    if sampling.repetition_penalty != 1:
        tokens = torch.tensor(sorted(set(row.seen)), device=logits.device)
        some, factor = logits[tokens], sampling.repetition_penalty
        logits[tokens] = torch.where(some > 0, some / factor, some * factor)
    change = {token: bias for token, bias in sampling.logit_bias if 0 <= token < vocab}
    if sampling.frequency_penalty or sampling.presence_penalty:
        for token, count in row.counts.items():
            lowered = change.get(token, 0.0) - sampling.presence_penalty - sampling.frequency_penalty * count
            change[token] = lowered
    if change:
        tokens = torch.tensor(list(change), device=logits.device)
        logits[tokens] += torch.tensor(list(change.values()), device=logits.device)
    if row.allowed is not None:
        logits.masked_fill_(~row.allowed, float("-inf"))
    if row.barred:
        logits[[token for token in row.barred if token < vocab]] = float("-inf")


def _draw(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    device = logits.device
    factors = [1 / row.sampling.temperature for row in rows]
    if any(factor != 1.0 for factor in factors):
        logits = logits * torch.tensor(factors, device=device)[:, None]
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
    width = max(rows[index].sampling.top_k for index in cut)
    if any(rows[index].sampling.top_k == 0 for index in cut):
        width = max(width, CANDIDATES)
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
    return invert(probs, points).tolist()


def _draw_cut(
    logits: Tensor, rows: Sequence[Row], points: Tensor, cut: list[int], width: int, ids: list[int]
) -> list[int]:
    """Draw for the rows `cut` from their `width` likeliest tokens; returns the rows for which these are too few."""
    vocab, settings = logits.shape[1], [rows[index].sampling for index in cut]
    some = logits if len(cut) == len(rows) else logits[cut]
    best, tokens = likeliest(some, width)
    limit = _column([item.top_k or vocab for item in settings], logits)
    # where every row has a top-k any normaliser will do: top-p is a share of what top-k leaves
    total = best[:, :1] if all(item.top_k for item in settings) else log_total(some)
    mass = (best - total).exp()
    mass = mass.masked_fill(torch.arange(mass.shape[1], device=logits.device) >= limit, 0.0)
    within = mass.cumsum(dim=-1)
    whole = torch.where(limit < vocab, within[:, -1:], 1.0)  # top-p is a share of what top-k left
    goal = whole * _column([item.top_p for item in settings], logits)
    kept = (within - mass < goal) & (mass >= mass[:, :1] * _column([item.min_p for item in settings], logits))
    kept[:, 0] = True
    picks = invert(mass * kept, points[cut])
    chosen = tokens.gather(1, picks[:, None])[:, 0].tolist()
    enough = ((within[:, -1:] >= goal) | (limit <= width))[:, 0].tolist()
    for place, index in enumerate(cut):
        ids[index] = chosen[place]
    return [] if width >= vocab else [index for place, index in enumerate(cut) if not enough[place]]


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)[:, None]


def invert(weights: Tensor, points: Tensor) -> Tensor:
    """The first index at which the running sum of `weights` (n, K) passes `points` (n,) of their total.

    An index with weight 0 is never chosen, provided that a row has any weight.
    """
    n, width = weights.shape
    if width <= CHUNK * CHUNK:
        goals = points * weights.sum(dim=-1, dtype=torch.float64)
        return _first_above(weights, goals)[0]
    even = width // CHUNK * CHUNK
    if even < width:
        weights = torch.nn.functional.pad(weights, (0, CHUNK - (width - even)))
    chunks = weights.view(n, -1, CHUNK)
    sums = chunks.sum(dim=-1)
    first, rest = _first_above(sums, points * sums.sum(dim=-1, dtype=torch.float64))
    inside = chunks[torch.arange(n, device=weights.device), first]
    return first * CHUNK + _first_above(inside, rest)[0]


def _first_above(weights: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
    """First index at which the running sum (float64) passes `goals` (n,), and what of the goal lies past its start."""
    running = weights.cumsum(dim=-1, dtype=torch.float64)
    picks = torch.searchsorted(running, goals[:, None], right=True)[:, 0]
    places = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, places, 0).amax(dim=-1)  # rounding may leave the goal at or above the total
    picks = torch.minimum(picks, last)
    before = running.gather(1, picks[:, None])[:, 0] - weights.gather(1, picks[:, None])[:, 0]
    return picks, goals - before
