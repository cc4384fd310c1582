"""How many threads a small step is computed by: what the last steps took decides.

A small model's products are shorter than the waking of a thread. On quiet cores a second thread still saves a tenth of
a step; where others want the cores it waits to be let in, and costs more than it saves. So both are timed while
requests run, and the quicker is used. Results do not depend on it: sums of integers are exact, and those of attention
are taken by one thread each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch

TRY_EVERY: Final = 24
"""Steps after which the other number of threads is tried for one."""
WEIGHT: Final = 0.2
"""Of the latest step in the running mean of its kind."""
OUTLIER: Final = 2.0
"""A step counts at most so many times the mean: one that waited for the system says little of the next."""


@contextmanager
def threads_set(number: int) -> Iterator[None]:
    """Within: torch computes with so many threads. Setting the number takes a tenth of a microsecond."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class StepThreads:
    """Chooses between one thread and all of torch's, by kind of step.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._means: dict[tuple[int, int], float] = {}
        """Seconds of a step by its kind (rows, doubling) and its threads."""
        self._steps: dict[int, int] = {}

    @contextmanager
    def step(self, rows: int) -> Iterator[None]:
        """Within: torch computes with the number of threads that such steps are quickest with, or that is tried."""
        everything = torch.get_num_threads()
        if everything == 1:
            yield
            return
        kind = (rows - 1).bit_length()
        threads = self.choose(kind, everything)
        started = self._clock()
        with threads_set(threads):
            yield
        self.note(kind, threads, self._clock() - started)

    def choose(self, kind: int, everything: int) -> int:
        """1 or `everything`, for the next step of its kind."""
        count = self._steps[kind] = self._steps.get(kind, 0) + 1
        both = (1, everything)
        unknown = [threads for threads in both if (kind, threads) not in self._means]
        if unknown:
            return unknown[0]
        quick, slow = sorted(both, key=lambda threads: self._means[kind, threads])
        return slow if count % TRY_EVERY == 0 else quick

    def note(self, kind: int, threads: int, seconds: float) -> None:
        """A step of its kind took so long with so many threads."""
        mean = self._means.get((kind, threads), seconds)
        self._means[kind, threads] = mean + WEIGHT * (min(seconds, OUTLIER * mean) - mean)
