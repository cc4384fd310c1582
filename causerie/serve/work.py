"""Work that outlives its request: tasks by name, that go on after the answer and end with the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("causerie.serve")


class Workers:
    """Named tasks of one event loop; a name runs once at a time."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self.closing = False

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run work under a name; when the name is running already, or the server is ending, it is not begun."""
        if self.closing or self.running(name):
            work.close()
            return
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def running(self, name: str) -> bool:
        """Whether a name's work is under way."""
        return name in self._tasks

    async def cancel(self, name: str) -> None:
        """End a name's work and wait for that."""
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def wait(self, name: str) -> None:
        """Wait for a name's work to end."""
        task = self._tasks.get(name)
        if task is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        """End all work; what it does goes on when the server is started again."""
        self.closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", name, exc_info=task.exception())
