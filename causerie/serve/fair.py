"""Turns at something scarce, shared fairly: whoever has had the least work done comes next, whatever others queue.

Start-time fair queueing (Goyal, Vin, Cheng 1996): a tenant's next turn begins, in virtual time, where its last one
ended; turns are given in the order of their beginnings, so that a tenant with a thousand requests waiting delays
another's one by no more than the turn under way. Only turns that came count as work: who left the line, or waited too
long, leaves no trace.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class _Waiting:
    """One caller in its tenant's line; `arrived` is the virtual time when it came."""

    arrived: float
    number: int
    slots: int
    cost: int
    future: asyncio.Future[None]


class FairQueue:
    """Gives `slots` to callers in fair order. All methods belong to one event loop."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.free = slots
        self._virtual = 0.0
        self._ends: dict[str, float] = {}
        self._lines: dict[str, deque[_Waiting]] = {}
        self._count = 0

    @property
    def waiting(self) -> int:
        """Callers whose turn has not come."""
        return sum(not each.future.done() for line in self._lines.values() for each in line)

    @asynccontextmanager
    async def turn(self, tenant: str, slots: int, cost: int, seconds: float | None) -> AsyncIterator[None]:
        """Hold slots for the block, waiting for them if need be.

        Args:
            tenant: whose turn it is.
            slots: how many; more than there are means all.
            cost: tokens of work, by which turns are weighed.
            seconds: how long to wait at most.

        Raises:
            TimeoutError: when the turn did not come in time.
        """
        slots = min(slots, self.slots)
        self._count += 1
        future = asyncio.get_running_loop().create_future()
        this = _Waiting(self._virtual, self._count, slots, cost, future)
        self._lines.setdefault(tenant, deque()).append(this)
        self._serve()
        if not future.done():
            await self._wait(tenant, this, seconds)
        try:
            yield
        finally:
            self._give(slots)

    def give_up(self) -> None:
        """End all waiting, as if the time were over."""
        for line in self._lines.values():
            for each in line:
                if not each.future.done():
                    each.future.set_exception(TimeoutError())

    async def _wait(self, tenant: str, this: _Waiting, seconds: float | None) -> None:
        future = this.future
        try:
            async with asyncio.timeout(seconds):
                await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._ends[tenant] -= this.cost  # the turn came in the same moment: pass it on
                self._give(this.slots)
            future.cancel()
            self._serve()
            raise

    def _give(self, slots: int) -> None:
        self.free += slots
        self._serve()
        if self.free == self.slots and not self._lines:  # all is quiet: nobody is owed anything
            self._virtual = 0.0
            self._ends.clear()

    def _serve(self) -> None:
        """Begin the turns that can begin; those that were given up are passed over."""
        while (found := self._next()) is not None:
            start, tenant, this = found
            if self.free < this.slots:
                return
            self._lines[tenant].popleft()
            self.free -= this.slots
            self._virtual = max(self._virtual, start)
            self._ends[tenant] = start + this.cost
            this.future.set_result(None)

    def _next(self) -> tuple[float, str, _Waiting] | None:
        """The turn that begins the earliest, its beginning and its tenant: the first of every line is looked at."""
        best: tuple[float, str, _Waiting] | None = None
        for tenant in list(self._lines):
            line = self._lines[tenant]
            while line and line[0].future.done():
                line.popleft()
            if not line:
                del self._lines[tenant]
                continue
            start = max(line[0].arrived, self._ends.get(tenant, 0.0))
            if best is None or (start, line[0].number) < (best[0], best[2].number):
                best = (start, tenant, line[0])
        return best
