"""Turns at something scarce, shared fairly: whoever has had the least work done comes next, whatever others queue.

Start-time fair queueing (Goyal, Vin, Cheng 1996): a tenant's next turn begins, in virtual time, where its last one
ended; turns are given in the order of their beginnings, so that a tenant with a thousand requests waiting delays
another's one by no more than the turn under way.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairQueue:
    """Gives `slots` to callers in fair order. All methods belong to one event loop."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.free = slots
        self._virtual = 0.0
        self._ends: dict[str, float] = {}
        self._waiting: list[tuple[float, int, int, asyncio.Future[None]]] = []
        self._count = 0

    @property
    def waiting(self) -> int:
        """Callers whose turn has not come."""
        return sum(not future.done() for _, _, _, future in self._waiting)

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
        start = max(self._virtual, self._ends.get(tenant, 0.0))
        self._ends[tenant] = start + cost
        if self._waiting or self.free < slots:
            await self._wait(start, slots, seconds)
        else:
            self._take(start, slots)
        try:
            yield
        finally:
            self._give(slots)

    def give_up(self) -> None:
        """End all waiting, as if the time were over."""
        for _, _, _, future in self._waiting:
            if not future.done():
                future.set_exception(TimeoutError())

    async def _wait(self, start: float, slots: int, seconds: float | None) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waiting, (start, self._count, slots, future))
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                await future
        except BaseException:
            if (
                future.done() and not future.cancelled() and future.exception() is None
            ):  # the turn came in the same moment: pass it on
                self._give(slots)
            future.cancel()
            self._serve()
            raise

    def _take(self, start: float, slots: int) -> None:
        self.free -= slots
        self._virtual = max(self._virtual, start)

    def _give(self, slots: int) -> None:
        self.free += slots
        self._serve()
        if self.free == self.slots and not self._waiting:  # all is quiet: nobody is owed anything
            self._virtual = 0.0
            self._ends.clear()

    def _serve(self) -> None:
        """Begin the turns that can begin; those that were given up are passed over."""
        while self._waiting:
            start, _, slots, future = self._waiting[0]
            if not future.done():
                if self.free < slots:
                    return
                self._take(start, slots)
                future.set_result(None)
            heapq.heappop(self._waiting)
