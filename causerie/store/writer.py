"""The one writer: a thread that gathers writes into groups, commits each group once and only then answers.

A commit with `synchronous=FULL` costs one flush of the disk (milliseconds), whatever it holds; so writes that
arrive while a flush is under way share the next one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError

from causerie.core import CauserieError, crashpoint
from causerie.store.errors import database_error

WINDOW_SECONDS: Final = 0.003
"""How long a group waits for company, when the group before it had some."""

LAZY_SECONDS: Final = 0.1
"""How long rows that nobody waits for may lie in memory."""

GROUP_LIMIT: Final = 500
"""Most writes in one commit."""

Work = Callable[[Connection], Any]


@dataclass
class Job:
    """One write: what to do within the transaction, and where its result goes after the commit."""

    work: Work
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Owns the thread; `submit` may be called from any thread. `where` names the database in errors."""

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self._where = where
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._sources: list[Callable[[], Job | None]] = []
        self.failing: CauserieError | None = None
        self._thread = threading.Thread(target=self._loop, name="causerie-store-writer", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether `close` was called: further writes are refused."""
        return self._closed

    @property
    def queued(self) -> int:
        """Writes whose group has not begun."""
        return self._queue.qsize()

    def submit(self, work: Work) -> Future[Any] | None:
        """Queue a write; its future is resolved after the commit is on the disk. None when the writer is closed."""
        job = Job(work)
        with self._lock:
            if self._closed:
                return None
            self._queue.put(job)
        return job.future

    def poll(self, source: Callable[[], Job | None]) -> None:
        """Ask a source for writes that nobody waits for, every `LAZY_SECONDS` and at the end; it must not block."""
        self._sources.append(source)

    def close(self) -> None:
        """Commit what is queued, then end the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        crowded, ended, polled = False, False, time.monotonic()
        while not ended:
            group, ended = self._gather(WINDOW_SECONDS if crowded else 0.0)
            crowded = len(group) > 1
            if ended or time.monotonic() - polled >= LAZY_SECONDS:
                polled = time.monotonic()
                group += self._polled()
            if group:
                self._commit_group(group)
        while (group := self._polled()) and self.failing is None:
            self._commit_group(group)

    def _polled(self) -> list[Job]:
        found = [job for source in list(self._sources) if (job := source()) is not None]
        return [begun for job in found for begun in _begun(job)]

    def _gather(self, window: float) -> tuple[list[Job], bool]:
        try:
            first = self._queue.get(timeout=LAZY_SECONDS)
        except queue.Empty:
            return [], False
        if first is None:
            return [], True
        group, until = _begun(first), time.monotonic() + window
        while len(group) < GROUP_LIMIT:
            try:
                job = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return group, True
            group += _begun(job)
        return group, False

    def _commit_group(self, group: list[Job]) -> None:
        """Commit all jobs together; when the database itself fails within a group, each is tried on its own."""
        failure = self._try_commit(group)
        if failure is not None and len(group) > 1:
            for job in group:
                job.result = job.error = None
                job.error = self._try_commit([job]) or job.error
        elif failure is not None:
            group[0].error = failure
        explained = self._explain(failure) if failure is not None else None
        self.failing = explained if isinstance(explained, CauserieError) else None
        for job in group:
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(self._explain(job.error))

    def _try_commit(self, group: list[Job]) -> BaseException | None:
        """Run the jobs in one transaction; returns the failure that undid all of them, if one did."""
        try:
            with self._engine.connect().execution_options(causerie_write=True) as connection, connection.begin():
                for job in group:
                    _run_apart(connection, job)
                crashpoint("store.before_commit")
            crashpoint("store.after_commit")
        except Exception as error:  # whatever happened, the callers must be told
            return error
        return None

    def _explain(self, error: BaseException) -> BaseException:
        return database_error(error, self._where) if isinstance(error, DBAPIError) else error


def _begun(job: Job) -> list[Job]:
    """The job, from now on past cancelling; nothing when its caller has gone away before it began."""
    return [job] if job.future.set_running_or_notify_cancel() else []


def _run_apart(connection: Connection, job: Job) -> None:
    """Run one job within its own savepoint: its failure undoes it alone, unless the database itself failed."""
    savepoint = connection.begin_nested()
    try:
        job.result = job.work(connection)
        savepoint.commit()
    except (OperationalError, InvalidRequestError):
        raise
    except Exception as error:
        savepoint.rollback()
        job.error = error
