"""Steps on a CUDA device: torch's paged variable-length attention, and decode steps replayed from captured graphs.

Written against the documented interfaces of torch 2.13 and NOT YET RUN on a GPU: planning and padding are tested on the
CPU with a plain stand-in for the attention kernel, the capture itself is not (docs/guides/engine.md says so too). The
engine uses this file only for a `cuda` device; where the installed torch has no paged attention it takes the same
`BlockAttend` as on the CPU, without graphs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any, Final

import torch
from torch import Tensor

from causerie.infer.attend import KeyValueCache
from causerie.infer.scheduler import Work

GRAPH_SIZES: Final = (1, 2, 4, 8, *range(16, 513, 16))
"""Decode batches that are captured; others are padded up to the next."""


def paged_attention() -> Callable[..., Any] | None:
    """torch's `varlen_attn` where it can read block tables, else None."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "block_table" in inspect.signature(varlen_attn).parameters else None


class PagedAttend:
    """The `Attend` of one step over block tables; nothing is gathered or padded.

    Args:
        cache: keys and values.
        slots: (N,) int64, where each token's keys and values go.
        starts: (rows + 1,) int32, first query of each sequence and the end.
        used: (rows,) int32, tokens of each sequence that are in the cache after this step's are written.
        table: (rows, most blocks) int32.
        longest: most queries, and most keys, of a sequence.
        windows: for each layer how many positions back a query may look, None for all.
        scale: factor of the dot products.
        kernel: `paged_attention()`.
    """

    def __init__(
        self,
        cache: KeyValueCache,
        slots: Tensor,
        starts: Tensor,
        used: Tensor,
        table: Tensor,
        longest: tuple[int, int],
        windows: Many[int | None],
        scale: float,
        kernel: Callable[..., Any],
    ) -> None:
        self.cache, self.slots, self.starts, self.used, self.table = cache, slots, starts, used, table
        self.longest, self.windows, self.scale, self.kernel = longest, windows, scale, kernel

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `BlockAttend`."""
        self.cache.write(layer, self.slots, k[0].transpose(0, 1), v[0].transpose(0, 1))
        keys, values = self.cache.layers[layer].unbind()
        window = self.windows[layer]
        out = self.kernel(
            q[0].transpose(0, 1).contiguous(),
            keys,
            values,
            self.starts,
            None,
            *self.longest,
            scale=self.scale,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=q.shape[1] != k.shape[1],
            seqused_k=self.used,
            block_table=self.table,
        )
        return out.transpose(0, 1)[None]


def plan_paged(
    cache: KeyValueCache, work: Many[Work], windows: Many[int | None], scale: float, kernel: Callable[..., Any]
) -> PagedAttend:
    """The `PagedAttend` for a step's work, in its order."""
    size, device = cache.block_size, cache.device
    starts, slots, used, tables = [0], [], [], []
    for item in work:
        end, blocks = item.start + item.count, item.sequence.blocks
        starts.append(starts[-1] + item.count)
        slots += [blocks[place // size] * size + place % size for place in range(item.start, end)]
        used.append(end)
        tables.append(blocks[: -(-end // size)])
    width = max(map(len, tables))
    table = torch.tensor([row + [0] * (width - len(row)) for row in tables], dtype=torch.int32, device=device)
    starts_, used_ = (torch.tensor(values, dtype=torch.int32, device=device) for values in (starts, used))
    longest = max(item.count for item in work), max(used)
    return PagedAttend(
        cache, torch.tensor(slots, device=device), starts_, used_, table, longest, windows, scale, kernel
    )


class CapturedDecode:
    """Decode steps, one token per sequence, as graphs captured once per padded batch size.

    Padding rows write to and read from the cache's last block, which the engine's pool must not hand out.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        cache: KeyValueCache,
        windows: Many[int | None],
        scale: float,
        most_blocks: int,
    ) -> None:
        kernel = paged_attention()
        assert kernel is not None
        self.model, self.cache, self.windows, self.scale, self.kernel = model, cache, windows, scale, kernel
        most, device = GRAPH_SIZES[-1], cache.device
        spare = cache.layers[0].shape[1] - 1
        self.spare_slot = spare * cache.block_size
        self.inputs = torch.zeros(2, most, dtype=torch.int64, device=device)
        self.slots = torch.full((most,), self.spare_slot, device=device)
        self.used = torch.ones(most, dtype=torch.int32, device=device)
        self.table = torch.full((most, most_blocks), spare, dtype=torch.int32, device=device)
        self.starts = torch.arange(most + 1, dtype=torch.int32, device=device)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def fits(self, work: Many[Work]) -> bool:
        """Whether a step is a decode step that a graph can hold."""
        return len(work) <= GRAPH_SIZES[-1] and all(item.count == 1 for item in work)

    def __call__(self, work: Many[Work], inputs: Tensor) -> Tensor:
        """Hidden states (n, D) of a step; ids and positions (2, n) as the engine has them."""
        n = len(work)
        size = next(known for known in GRAPH_SIZES if known >= n)
        plan = plan_paged(self.cache, work, self.windows, self.scale, self.kernel)
        self.inputs[:, :n], self.slots[:n], self.used[:n] = inputs, plan.slots, plan.used
        self.table[:n, : plan.table.shape[1]] = plan.table
        self.slots[n:size], self.used[n:size], self.table[n:size, 0] = (
            self.spare_slot,
            1,
            self.table.new_tensor(self.spare_slot // self.cache.block_size),
        )
        if size not in self.graphs:
            self._capture(size)
        graph, hidden = self.graphs[size]
        graph.replay()
        return hidden[:n]

    def _run(self, size: int) -> Tensor:
        longest = 1, self.table.shape[1] * self.cache.block_size
        attend = PagedAttend(
            self.cache,
            self.slots[:size],
            self.starts[: size + 1],
            self.used[:size],
            self.table[:size],
            longest,
            self.windows,
            self.scale,
            self.kernel,
        )
        ids, positions = self.inputs[:1, :size], self.inputs[1:, :size]
        return self.model(ids, positions=positions, attend=attend)[0]

    def _capture(self, size: int) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # once without capture: kernels are chosen and workspaces made
            self._run(size)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            hidden = self._run(size)
        self.graphs[size] = graph, hidden
