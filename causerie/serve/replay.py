"""Streams that survive a disconnect: what was sent is kept for a while and can be read again from any event on.

Work that is replayed runs in a task of its own. Readers follow it; one that leaves does not stop it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from causerie.serve.errors import ApiError

BUFFER_BYTES: Final = 4 * 2**20
"""Bytes of events kept of one stream; older ones are dropped."""
KEPT: Final = 256
"""Streams kept, those under way and those that ended last."""


class Replay:
    """The events of one stream, numbered from 0."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._events: deque[bytes] = deque()
        self._first = 0
        self._bytes = 0
        self._changed = asyncio.Event()
        self.ended = False
        self.task: asyncio.Task[None] | None = None

    @property
    def next_number(self) -> int:
        """The number that the next event gets."""
        return self._first + len(self._events)

    def put(self, event: bytes) -> None:
        """Add an event, dropping the oldest when the buffer is full."""
        self._events.append(event)
        self._bytes += len(event)
        while self._bytes > BUFFER_BYTES and len(self._events) > 1:
            self._bytes -= len(self._events.popleft())
            self._first += 1
        self._wake()

    def end(self) -> None:
        """No event follows."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self, after: int = -1) -> AsyncGenerator[bytes, None]:
        """Events from number `after + 1` on, past and future, until the stream ends.

        Raises:
            ApiError: 410 when some of them are not kept any more.
        """
        number = after + 1
        while True:
            if number < self._first:
                raise ApiError(410, f"events before number {self._first} are gone", code="events_gone")
            while number < self.next_number:
                yield self._events[number - self._first]
                number += 1
                if number < self._first:
                    break
            if number < self._first:
                continue
            if self.ended:
                return
            await self._changed.wait()


class Replays:
    """The streams that can be read again, by the id of what they bring."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Replay] = OrderedDict()

    def open(self, id: str, owner: str) -> Replay:
        """A new stream; the oldest ended one makes room."""
        replay = Replay(owner)
        self._kept[id] = replay
        if len(self._kept) > KEPT:
            over = next((key for key, each in self._kept.items() if each.ended), None)
            if over is not None:
                del self._kept[over]
        return replay

    def find(self, id: str, owner: str) -> Replay | None:
        """The stream with this id, if it is kept and the owner's."""
        found = self._kept.get(id)
        return found if found is not None and found.owner == owner else None

    def forget(self, id: str) -> None:
        """Keep it no longer, ending the work behind it."""
        replay = self._kept.pop(id, None)
        if replay is not None and replay.task is not None:
            replay.task.cancel()

    def start(self, id: str, owner: str, events: AsyncIterator[bytes]) -> Replay:
        """Run a stream in a task of its own."""
        replay = self.open(id, owner)

        async def run() -> None:
            try:
                async with aclosing(events) as stream:  # type: ignore[type-var]
                    async for event in stream:
                        replay.put(event)
            finally:
                replay.end()

        replay.task = asyncio.create_task(run(), name=f"stream {id}")
        return replay

    async def close(self) -> None:
        """End all work."""
        tasks = [each.task for each in self._kept.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def resume_point(starting_after: str | None, last_event_id: str | None) -> int:
    """The number after which a reader goes on: the query's `starting_after`, else the header `Last-Event-ID`, else -1.

    Raises:
        ApiError: 400 when it is no number.
    """
    text = starting_after if starting_after is not None else last_event_id
    if text is None:
        return -1
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ApiError(400, "starting_after is not an event's number", code="invalid_value", param="starting_after")
    return int(text)
