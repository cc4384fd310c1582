"""Which part of a mixture each row of training is from: exact, deterministic, the same on any number of ranks.

After n rows every part has been given n · weight of them, less than one more or less, for every n: the boundaries
between parts are rounded cumulative sums, in exact fractions. Within a block of 1,024 rows the order is shuffled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import seed_for

BLOCK: Final = 1024
BLOCKS_KEPT: Final = 4


class Schedule:
    """Row number → (part, number of the row within its part)."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        exact = [Fraction(weight) for weight in weights]
        total = sum(exact)
        self._ends = [sum(exact[: number + 1], Fraction(0)) / total for number in range(len(exact))]
        self._seed = seed
        self._blocks: OrderedDict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = OrderedDict()

    def given(self, rows: int) -> list[int]:
        """How many of the first `rows` rows each part has."""
        ends = [(end * rows + Fraction(1, 2)).__floor__() for end in self._ends]
        return [end - before for before, end in zip([0, *ends[:-1]], ends, strict=True)]

    def place(self, row: int) -> tuple[int, int]:
        """The part of a row, and which of the part's rows it is."""
        block, within = divmod(row, BLOCK)
        parts, numbers = self._block(block)
        return int(parts[within]), int(numbers[within])

    def _block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if block not in self._blocks:
            before, after = self.given(block * BLOCK), self.given((block + 1) * BLOCK)
            counts = [end - begin for begin, end in zip(before, after, strict=True)]
            parts = np.repeat(np.arange(len(counts)), counts)
            numbers = np.concatenate([np.arange(b, e) for b, e in zip(before, after, strict=True)])
            generator = np.random.Generator(np.random.Philox(seed_for(self._seed, "mixture", block)))
            order = generator.permutation(BLOCK)
            self._blocks[block] = (parts[order], numbers[order])
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[block]
