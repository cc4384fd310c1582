"""Training batches of preference rows: a pure function of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from causerie.align.shared_rows import Group, layout
from causerie.core import seed_for, sha256_json


@dataclass(frozen=True)
class GroupBatches:
    """Rows of a preference run in a new random order each epoch, every row once per epoch.

    An epoch is cut in `n // batch_size` batches of nearly equal size (at least `batch_size` rows while there are as
    many), so that no batch is a small remainder.
    """

    groups: Sequence[Group]
    values: Mapping[str, Tensor]
    """Per row `(n, ...)`: the reference's log-probabilities, weights, labels; sliced into each batch."""
    batch_size: int
    micro_batch: int
    """Rows per forward pass; 0: the whole batch."""
    seed: int
    at_least: int = 1
    """No micro-batch is smaller than this (where the data allow), because an estimate needs several rows."""

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the rows."""
        return max(1, len(self.groups) // self.batch_size)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of rows, values, sizes and seed."""
        rows = [[list(group.prompt), [list(c) for c in group.completions]] for group in self.groups]
        values = {name: value.tolist() for name, value in self.values.items()}
        return sha256_json([rows, values, self.batch_size, self.micro_batch, self.at_least, self.seed])

    def rows(self, step: int) -> list[int]:
        """Rows of update `step`, longest first."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng(seed_for(self.seed, "order", epoch)).permutation(len(self.groups))
        chosen = np.array_split(order, self.steps_per_epoch)[place].tolist()
        return sorted(chosen, key=lambda row: (-self.groups[row].length, row))

    def micro_batches(self, step: int) -> list[dict[str, Tensor]]:
        """The micro-batches of update `step`: tensors of `layout` and the rows' values."""
        rows = self.rows(step)
        parts = math.ceil(len(rows) / self.micro_batch) if self.micro_batch else 1
        parts = max(1, min(parts, len(rows) // self.at_least))
        return [self.batch(part.tolist()) for part in np.array_split(np.array(rows), parts)]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The batch of the given rows."""
        index = torch.tensor(list(rows))
        return {**layout([self.groups[row] for row in rows]), **{k: v[index] for k, v in self.values.items()}}


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first, of at most `batch_tokens` with padding (or one item)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
