"""Rows that nobody waits for, such as usage: gathered in memory and written many at a time by the store's writer."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from sqlalchemy import Connection, Table, insert

from causerie.store.store import Store
from causerie.store.writer import Job

MOST: Final = 50_000
"""Rows kept while the database takes none; beyond it the oldest are dropped, and counted."""
AT_ONCE: Final = 1_000

log = logging.getLogger("causerie.store")


class RowLog:
    """The rows of one table on their way to the disk. `add` may be called from any thread.

    Rows are kept when the database fails and tried again with the next one.
    """

    def __init__(self, store: Store, table: Table) -> None:
        self._insert = insert(table)
        self._rows: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._flight: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._busy = False
        self.failing = False
        self.dropped = 0
        store.poll(self._next)

    @property
    def waiting(self) -> int:
        """Rows not written yet."""
        return len(self._rows) + len(self._flight)

    def add(self, row: Mapping[str, Any]) -> None:
        """Hand over a row, without waiting for it."""
        with self._lock:
            self.dropped += len(self._rows) == MOST
            self._rows.append(dict(row))

    def pending(self) -> list[dict[str, Any]]:
        """The rows that may not be on the disk yet, oldest first; whoever then reads the table has seen every row."""
        with self._lock:
            return [*self._flight, *self._rows]

    def _next(self) -> Job | None:
        """What the writer does when it comes by."""
        if self._busy or not (self._rows or self._flight):
            return None
        self._busy = True
        job = Job(self._write)
        job.future.add_done_callback(self._written)
        return job

    def _write(self, connection: Connection) -> int:
        """Write a load of rows, again the same one after a failure; they are forgotten after the commit."""
        with self._lock:
            while self._rows and len(self._flight) < AT_ONCE:
                self._flight.append(self._rows.popleft())
        connection.execute(self._insert, self._flight)
        return len(self._flight)

    def _written(self, written: Future[int]) -> None:
        error = written.exception()
        if error is not None and not self.failing:
            log.error("rows are not written, %d are waiting: %s", self.waiting, error)
        self.failing = error is not None
        if error is None:
            with self._lock:
                self._flight = []
        self._busy = False
