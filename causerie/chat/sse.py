"""Server-sent events with a memory: a reader that lost its connection goes on from the last event it saw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

KEEP_ALIVE_SECONDS: Final = 15.0


class EventLog:
    """Events of one piece of work, numbered from 0; any number of readers follow, from any point."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._wake = asyncio.Event()
        self.closed = False

    def emit(self, event: str, **data: Any) -> None:
        """Append an event and wake the readers."""
        text = json.dumps(data, ensure_ascii=False)
        self._frames.append(f"id: {len(self._frames)}\nevent: {event}\ndata: {text}\n\n".encode())
        self._notify()

    def close(self) -> None:
        """No more events: readers end after the last one."""
        self.closed = True
        self._notify()

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def follow(self, after: int = 0) -> AsyncIterator[bytes]:
        """Frames from number `after` on, as they come; a comment keeps an idle connection open."""
        at = max(after, 0)
        while True:
            wake = self._wake
            if at < len(self._frames):
                chunk = b"".join(self._frames[at:])
                at = len(self._frames)
                yield chunk
            elif self.closed:
                return
            else:
                try:
                    await asyncio.wait_for(wake.wait(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield b": waiting\n\n"
