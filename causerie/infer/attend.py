"""Attention over the block cache: the `Attend` that the engine hands to the model for one step.

A step's tokens come to the model as one row, `(1, N)`: single tokens of decoding sequences first, then chunks of
prompts. All linear layers thus see one large matrix; only here are the sequences told apart. For each layer the new
keys and values are written to their blocks first, then the decoding sequences are answered as one padded batch from
their blocks, and each chunk by itself (`chunks`): a prompt's first chunk from the keys at hand, a later one from its
blocks.

Query heads that share a key-value head are folded into the query positions, so keys are never repeated. Blocks that
lie one after the other, as those of a sequence alone mostly do, are read where they are and not copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from causerie.infer.chunks import attend_chunk
from causerie.infer.scheduler import Work
from causerie.infer.threads import threads_set

EVEN: Final = 16
"""A single token always sees a multiple of so many positions, the rest masked: torch's kernel adds up in an order that
depends on the remainder, and a sequence alone is to get what it gets beside longer ones, bit for bit in bfloat16."""


_ANY_NUMBER: Final = nullcontext()
"""Of threads."""


class KeyValueCache:
    """Keys and values of all blocks: per layer one tensor `(2, n_blocks, block_size, Hkv, Dh)`."""

    def __init__(
        self,
        n_layer: int,
        n_blocks: int,
        block_size: int,
        n_kv_head: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        size = (2, n_blocks, block_size, n_kv_head, head_dim)
        # Zeros, not empty: masked positions are multiplied by 0, and 0 times a stray NaN is NaN.
        self.layers = [torch.zeros(size, dtype=dtype, device=device) for _ in range(n_layer)]
        self.block_size, self.n_blocks = block_size, n_blocks
        self.dtype, self.device = dtype, device
        self._flat = [layer.view(2, -1, n_kv_head, head_dim) for layer in self.layers]
        self._parts = [flat.unbind() for flat in self._flat]

    def write(self, layer: int, slots: Tensor | slice, keys: Tensor, values: Tensor) -> None:
        """Put keys and values `(N, Hkv, Dh)` at `slots` `(N,)` = block * block_size + offset."""
        for part, new in zip(self._parts[layer], (keys, values), strict=True):
            if isinstance(slots, slice):
                part[slots] = new
            else:
                part.index_copy_(0, slots, new)

    def read(self, layer: int, view: View, n_rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values, each `(n_rows, Hkv, S, Dh)`, of what a view shows."""
        if view.table is None:
            both = self._flat[layer][:, None, view.first : view.last]
        else:
            both = self.layers[layer].index_select(1, view.table)
            both = both.view(2, n_rows, -1, *both.shape[3:])
        keys, values = both.transpose(2, 3).unbind()
        return keys, values


@dataclass(frozen=True)
class View:
    """Which slots a group reads in the layers of one window, and what it may see of them."""

    mask: Tensor | None = None
    """(rows, 1, 1, S) of the cache's type: 0 where a single token may look, -inf elsewhere; None: it sees all."""
    table: Tensor | None = None
    """(rows * blocks,) int64; None for one sequence whose slots lie one after the other, `first` to `last`."""
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Group:
    """Queries that are answered together: `rows` single tokens from token `first` on, or one chunk of `length`."""

    first: int
    rows: int
    length: int
    views: dict[int | None, View]
    seen: dict[int | None, int]
    """Of a chunk, by window: how many of the view's positions there are up to the end of the chunk."""
    fresh: bool = False
    """Whether the chunk begins its sequence: all that it sees is in the step itself."""


class BlockAttend:
    """The `Attend` of one step; made anew for each step by `plan_attend`."""

    def __init__(
        self,
        cache: KeyValueCache,
        slots: Tensor | slice,
        groups: list[Group],
        windows: Many[int | None],
        scale: float,
    ) -> None:
        self.cache, self.slots, self.groups, self.windows, self.scale = cache, slots, groups, windows, scale

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Answer q `(1, H, N, Dh)` from the cache after writing k, v `(1, Hkv, N, Dh)`; returns `(1, H, N, Dh)`."""
        self.cache.write(layer, self.slots, k[0].transpose(0, 1), v[0].transpose(0, 1))
        answers = [
            self._singles(layer, group, q, k.shape[1]) if group.length == 1 else self._chunk(layer, group, q, k, v)
            for group in self.groups
        ]
        return answers[0] if len(answers) == 1 else torch.cat(answers, dim=2)

    def _singles(self, layer: int, group: Group, q: Tensor, n_kv_head: int) -> Tensor:
        n_head, head_dim = q.shape[1], q.shape[3]
        rows, view = group.rows, group.views[self.windows[layer]]
        keys, values = self.cache.read(layer, view, rows)
        asked = q[0, :, group.first : group.first + rows]
        folded = asked.reshape(n_kv_head, -1, rows, head_dim).permute(2, 0, 1, 3)
        # Alone, its matrix products would share their sums among the threads: other bits than beside others.
        with threads_set(1) if rows * n_kv_head == 1 and torch.get_num_threads() > 1 else _ANY_NUMBER:
            out = scaled_dot_product_attention(folded, keys, values, attn_mask=view.mask, scale=self.scale)
        return out.permute(1, 2, 0, 3).reshape(1, n_head, rows, head_dim)

    def _chunk(self, layer: int, group: Group, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        window, part = self.windows[layer], slice(group.first, group.first + group.length)
        if group.fresh:
            keys, values = k[:, :, part], v[:, :, part]
        else:
            keys, values = self.cache.read(layer, group.views[window], 1)
            keys, values = keys[:, :, : group.seen[window]], values[:, :, : group.seen[window]]
        return attend_chunk(q[:, :, part], keys, values, self.scale, window)


def plan_attend(cache: KeyValueCache, work: Many[Work], windows: Many[int | None], *, scale: float) -> BlockAttend:
    """The `Attend` for a step's work, single tokens first.

    Args:
        cache: where keys and values are.
        work: as `Batch.ordered` gives it.
        windows: for each layer how many positions back a query may look, None for all.
        scale: factor of the dot products.
    """
    singles = [item for item in work if item.count == 1]
    grouped = [singles] if singles else []
    grouped += [[item] for item in work if item.count > 1]
    groups, first = [], 0
    for items in grouped:
        groups.append(_group(cache, first, items, set(windows)))
        first += len(items) * items[0].count
    places = [slot for item in work for slot in _slots(item, cache.block_size)]
    straight = len(places) > 1 and _consecutive(places)  # copied as a whole: in a fifth of the time
    slots = slice(places[0], places[-1] + 1) if straight else torch.tensor(places, device=cache.device)
    return BlockAttend(cache, slots, groups, windows, scale)


def _group(cache: KeyValueCache, first: int, items: list[Work], windows: set[int | None]) -> Group:
    length = items[0].count
    if length > 1 and items[0].start == 0:
        return Group(first, 1, length, {}, {}, fresh=True)
    views = {window: _view(cache, items, window) for window in windows}
    end = items[0].start + length
    seen = {window: end - _first_block(items[0], window, cache.block_size) * cache.block_size for window in windows}
    return Group(first, len(items), length, views, seen)


def _slots(work: Work, block_size: int) -> list[int]:
    blocks = work.sequence.blocks
    return [
        blocks[position // block_size] * block_size + position % block_size
        for position in range(work.start, work.start + work.count)
    ]


def _first_block(work: Work, window: int | None, block_size: int) -> int:
    """Which of its blocks holds the first position that any of the tokens may look at, `EVEN` positions taken whole."""
    earliest = 0 if window is None else max(0, work.start - window + 1)
    return earliest // EVEN * EVEN // block_size


def _view(cache: KeyValueCache, items: list[Work], window: int | None) -> View:
    size, length = cache.block_size, items[0].count
    firsts = [_first_block(item, window, size) for item in items]
    tables = [
        item.sequence.blocks[first : -(-(item.start + length) // size)]
        for item, first in zip(items, firsts, strict=True)
    ]
    even = EVEN // math.gcd(EVEN, size)  # blocks
    width = -(-max(map(len, tables)) // even) * even
    mask = None
    if length == 1:
        starts = torch.tensor([[item.start, first * size] for item, first in zip(items, firsts, strict=True)])
        mask = _mask(cache, starts[:, :1], starts[:, 1:] + torch.arange(width * size), window)
    first = tables[0][0]
    if len(items) == 1 and _consecutive(tables[0]) and first + width <= cache.n_blocks:
        return View(mask, None, first * size, (first + width) * size)
    padded = [block for table in tables for block in table + [0] * (width - len(table))]
    return View(mask, torch.tensor(padded, device=cache.device))


def _mask(cache: KeyValueCache, queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """(rows, 1, 1, S) for the positions of single tokens (rows, 1) and of their keys (rows, S)."""
    hidden = keys > queries
    if window is not None:
        hidden = hidden | (keys <= queries - window)
    mask = torch.zeros(hidden.shape, dtype=cache.dtype).masked_fill_(hidden, float("-inf"))
    return mask[:, None, None].to(cache.device)


def _consecutive(blocks: list[int]) -> bool:
    return blocks == list(range(blocks[0], blocks[0] + len(blocks)))
