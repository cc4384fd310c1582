"""Rows that nobody waits for, such as usage: gathered in memory and written many at a time by the store's writer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final

from sqlalchemy import Connection, Table, insert

from causerie.core import CauserieError
from causerie.store.store import Store

MOST: Final = 50_000
"""Rows kept while the database takes none; beyond it the oldest are dropped, and counted."""
AT_ONCE: Final = 1_000

log = logging.getLogger("causerie.store")


class RowLog:
    """The rows of one table on their way to the disk. `add` may be called from any thread.

    Rows are kept when the database fails and tried again with the next one.
    """

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._insert = insert(table)
        self._rows: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._flight: list[dict[str, Any]] = []
        self._queued = False
        self.failing = False
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Rows not written yet."""
        return len(self._rows) + len(self._flight)

    def add(self, row: Mapping[str, Any]) -> None:
        """Hand over a row, without waiting for it."""
        self.dropped += len(self._rows) == MOST
        self._rows.append(dict(row))
        if not self._queued:
            self._submit()

    def _submit(self) -> None:
        self._queued = True
        try:
            self._store.submit_work(self._write).add_done_callback(self._written)
        except CauserieError as error:
            self._queued = False
            log.error("%d rows were not written: %s", self.waiting, error)

    def _write(self, connection: Connection) -> int:
        """Write a load of rows, again the same one after a failure; they are forgotten after the commit."""
        while self._rows and len(self._flight) < AT_ONCE:
            self._flight.append(self._rows.popleft())
        if self._flight:
            connection.execute(self._insert, self._flight)
        return len(self._flight)

    def _written(self, written: Future[int]) -> None:
        error = written.exception()
        if error is not None:
            if not self.failing:
                log.error("rows are not written, %d are waiting: %s", self.waiting, error)
            self.failing = True
            self._queued = False
            return
        self.failing = False
        self._flight = []
        if self._rows:
            self._submit()
        else:
            self._queued = False
            if self._rows:  # one came in between
                self._submit()
