"""Several completions of one prompt in one row, the prompt computed once; and no padding.

A batch is one row of tokens, group after group: `[prompt, completion 0, completion 1, ..., prompt, ...]`. Each
completion sees its prompt and itself, never a neighbour, and its positions go on from the prompt's end, so that its
log-probability is exactly that of `[prompt, completion]` alone, at the cost of P + C₀ + C₁ tokens instead of
2P + C₀ + C₁. Only attention tells groups apart; every other layer sees one matrix of tokens that all count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from causerie.model import ModelShape, Transformer, chunked_loss

Ids = Sequence[int]
PROMPT = 0


@dataclass(frozen=True)
class Group:
    """A prompt and its completions, as token ids; no completion is empty."""

    prompt: Ids
    completions: tuple[Ids, ...]

    @property
    def length(self) -> int:
        """Tokens of the group in a row."""
        return len(self.prompt) + sum(map(len, self.completions))


class CompletionLogProbs(NamedTuple):
    """Log-probabilities of a batch's completions, group by group."""

    sums: Tensor
    """`(G,)` float32, summed over the tokens of each completion; differentiable."""
    tokens: Tensor
    """`(G,)` float32, tokens of each completion."""


def layout(groups: Sequence[Group]) -> dict[str, Tensor]:
    """Tensors of a batch: one row of all groups' tokens.

    Returns:
        `ids`, `positions`, `segment` (1, T): token, its position in `[prompt, completion]`, and 0 for a prompt, k for
        completion k−1 of its group. `pieces` (S, 2): group and length of each prompt and completion, in order.
        `source`, `target`, `owner` (N,) for the N completion tokens: place of the token that predicts it, its id, and
        the number of its completion in the batch. `lengths` (G,): tokens of each completion, float32. `ends` (G,):
        place of each completion's last token.
    """
    ids: list[int] = []
    positions: list[Tensor] = []
    segment: list[Tensor] = []
    pieces: list[tuple[int, int]] = []
    source: list[Tensor] = []
    target: list[int] = []
    lengths: list[int] = []
    ends: list[int] = []
    for number, group in enumerate(groups):
        last = len(ids) + len(group.prompt) - 1
        for part, tokens in enumerate((group.prompt, *group.completions)):
            begin, count = len(ids), len(tokens)
            positions.append(torch.arange(count) + (len(group.prompt) if part else 0))
            segment.append(torch.full((count,), part))
            pieces.append((number, count))
            if part:
                source += [torch.tensor([last]), torch.arange(begin, begin + count - 1)]
                target += tokens
                lengths.append(count)
                ends.append(begin + count - 1)
            ids += tokens
    sizes = torch.tensor(lengths)
    return {
        "ids": torch.tensor(ids)[None],
        "positions": torch.cat(positions)[None],
        "segment": torch.cat(segment)[None],
        "pieces": torch.tensor(pieces),
        "source": torch.cat(source),
        "target": torch.tensor(target),
        "owner": torch.arange(len(lengths)).repeat_interleave(sizes),
        "lengths": sizes.float(),
        "ends": torch.tensor(ends),
    }


@dataclass(frozen=True)
class _Span:
    """Where a group lies in the row, and how its completions are stacked for attention."""

    start: int
    prompt: int
    end: int
    stacked: Tensor
    """`(k·C,)`: places, within the group's completions, of k rows padded to the longest, C."""
    kept: Tensor
    """Places of the real tokens among the stacked ones."""
    rows: int
    longest: int


class GroupAttend:
    """Attention for `layout`: causal, completions see their prompt and themselves; windows count positions.

    The prompt's queries run as plain causal attention; the completions of a group run as one batch over the prompt's
    keys (computed once, shared) followed by their own. Padding behind a short completion is never seen by a real token.
    """

    def __init__(self, shape: ModelShape, pieces: Tensor, *, keep: bool = False) -> None:
        self.scale = shape.scale
        self.grouped = shape.n_head != shape.n_kv_head
        self.windows = tuple(shape.window(layer) for layer in range(shape.n_layer))
        self.spans = _spans(pieces)
        self.device = pieces.device
        self.keep = keep
        self.known: dict[int, list[tuple[Tensor, Tensor]]] = {}
        """By layer, where asked to `keep`: each prompt's keys and values `(1, Hkv, P, Dh)`, without gradient."""
        self._masks: dict[tuple[int, int, int], Tensor] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values of one layer; q (1, H, T, Dh), k and v (1, Hkv, T, Dh) → (1, H, T, Dh)."""
        mixed: list[Tensor] = []
        if self.keep:
            prompts = [slice(span.start, span.start + span.prompt) for span in self.spans]
            self.known[layer] = [(k[:, :, prompt].detach(), v[:, :, prompt].detach()) for prompt in prompts]
        for span in self.spans:
            prompt = slice(span.start, span.start + span.prompt)
            if span.prompt:
                mixed.append(self.mix(layer, q[:, :, prompt], k[:, :, prompt], v[:, :, prompt]))
            if span.rows:
                own = [_stack(x[0, :, span.start + span.prompt : span.end], span) for x in (q, k, v)]
                keys, values = (
                    torch.cat((x[:, :, prompt].expand(span.rows, -1, -1, -1), mine), 2)
                    for x, mine in ((k, own[1]), (v, own[2]))
                )
                mixed.append(_unstack(self.mix(layer, own[0], keys, values), span))
        return torch.cat(mixed, 2)

    def mix(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the last places among all known ones; q (B, H, A, Dh), k and v (B, Hkv, K, Dh)."""
        asked, known = q.shape[2], k.shape[2]
        mask = self._mask(asked, known, self.windows[layer])
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=self.grouped
        )

    def _mask(self, asked: int, known: int, window: int | None) -> Tensor | None:
        """The last `asked` of `known` places look back; None where plain causal attention says the same."""
        window = window if window and window < known else 0
        if asked == known and not window:
            return None
        key = (asked, known, window)
        if key not in self._masks:
            back = torch.arange(known - asked, known)[:, None] - torch.arange(known)[None]
            seen = (back >= 0) & (back < window) if window else back >= 0
            self._masks[key] = seen.to(self.device)
        return self._masks[key]


def _spans(pieces: Tensor) -> list[_Span]:
    sizes: list[list[int]] = []
    for group, length in pieces.tolist():
        if group == len(sizes):
            sizes.append([])
        sizes[-1].append(length)
    found, start = [], 0
    for prompt, *completions in sizes:
        longest = max(completions, default=0)
        begins = torch.tensor([sum(completions[:i]) for i in range(len(completions))])
        within = torch.arange(longest)[None]
        counts = torch.tensor(completions)
        places = begins[:, None] + torch.minimum(within, counts[:, None] - 1) if completions else begins[:, None]
        kept = (within < counts[:, None]).flatten().nonzero().flatten() if completions else begins
        end = start + prompt + sum(completions)
        device = pieces.device
        found.append(_Span(start, prompt, end, places.flatten().to(device), kept.to(device), len(completions), longest))
        start = end
    return found


def _stack(x: Tensor, span: _Span) -> Tensor:
    """(H, ΣC, Dh) → (k, H, C, Dh), short completions padded with their last token."""
    if span.rows > 1:
        x = x.index_select(1, span.stacked)
    return x.view(x.shape[0], span.rows, span.longest, -1).transpose(0, 1)


def _unstack(x: Tensor, span: _Span) -> Tensor:
    """(k, H, C, Dh) → (1, H, ΣC, Dh)."""
    flat = x.transpose(0, 1).reshape(x.shape[1], span.rows * span.longest, -1)
    return (flat if len(span.kept) == flat.shape[1] else flat.index_select(1, span.kept))[None]


def group_hidden(model: Transformer, batch: Mapping[str, Tensor]) -> Tensor:
    """Final hidden states of a batch made by `layout`, `(T, D)`."""
    attend = GroupAttend(model.shape, batch["pieces"])
    return model(batch["ids"], positions=batch["positions"], attend=attend)[0]


def completion_token_log_probs(model: Transformer, batch: Mapping[str, Tensor], temperature: float = 1.0) -> Tensor:
    """Log-probability of every completion token of a batch made by `layout`, `(N,)` float32, differentiable.

    At another temperature it is that of the distribution sampled from, softmax(logits / temperature).
    """
    hidden = group_hidden(model, batch)[batch["source"]]
    return -chunked_loss(model, hidden if temperature == 1.0 else hidden / temperature, batch["target"])


def completion_log_probs(model: Transformer, batch: Mapping[str, Tensor]) -> CompletionLogProbs:
    """Log-probability of each completion given its prompt, for a batch made by `layout`."""
    each = completion_token_log_probs(model, batch)
    sums = torch.zeros(batch["lengths"].shape[0], dtype=each.dtype, device=each.device)
    return CompletionLogProbs(sums.index_add(0, batch["owner"], each), batch["lengths"])
