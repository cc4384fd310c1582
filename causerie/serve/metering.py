"""Metering: one row of usage for each request that reached an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol

from sqlalchemy import Column, func, select

from causerie.serve.errors import as_api_error
from causerie.serve.metrics import Tally
from causerie.serve.pool import ServedVersion
from causerie.serve.prices import price_book
from causerie.store import RowLog, Store, new_id, now, usage

CLIENT_GONE: Final = 499
"""Status recorded for a request whose client left (nobody receives it)."""
MOST_KNOWN: Final = 30_000
"""Ids that one query takes, at most (SQLite's limit is 32,766)."""


class CachedTokens(Protocol):
    """What the meter reads of a `Usage`."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the engine had already."""
        ...


class Counted(Protocol):
    """What the meter reads of a `ChatDelta`."""

    @property
    def version(self) -> ServedVersion:
        """Which weights answer."""
        ...

    @property
    def ids(self) -> Sequence[int]:
        """Token ids drawn."""
        ...

    @property
    def finish(self) -> str | None:
        """Why the answer ended."""
        ...

    @property
    def usage(self) -> CachedTokens | None:
        """In the last delta, what it cost."""
        ...


@dataclass
class Meter:
    """Counts one request; leaving its block writes its row. Tokens are counted as they are drawn, broken streams too.

    Attributes:
        request_id: also sent as the `x-request-id` header.
        status: HTTP status; 499 when the client left before the end.
        project: whose request it is.
        headers: further headers of the answer.
        tally: where the process counts requests, for its metrics.
    """

    store: Store | None
    route: str
    key_id: str | None
    request_id: str = field(default_factory=lambda: new_id("req"))
    version: ServedVersion | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str | None = None
    status: int = 200
    project: str | None = None
    cached_tokens: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    tally: Tally | None = None
    first: float | None = None
    started: float = field(default_factory=time.monotonic)

    def count(self, delta: Counted, prompt_length: int = 0) -> None:
        """Add what one delta brought; `prompt_length` only with an answer's first."""
        self.version = delta.version
        self.prompt_tokens += prompt_length
        self.completion_tokens += len(delta.ids)
        if delta.finish:
            self.finish = delta.finish
            if delta.usage is not None:
                self.cached_tokens += delta.usage.cached_tokens
        if self.first is None and delta.ids:
            self.first = time.monotonic() - self.started

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, GeneratorExit | asyncio.CancelledError):
            self.status = CLIENT_GONE
        elif isinstance(error, Exception):
            self.status = as_api_error(error).status
        self.close()

    def close(self) -> None:
        """Hand the row to the store's writer, without waiting for it."""
        latency = time.monotonic() - self.started
        if self.tally is not None:
            self.tally.answered(self, latency)
        if self.store is None:
            return
        moment = now()
        model = self.version.label if self.version else None
        row: dict[str, Any] = {
            "request_id": self.request_id,
            "time": moment,
            "key_id": self.key_id,
            "route": self.route,
            "model": model,
            "version_key": self.version.key if self.version else None,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "latency": latency,
            "ttft": self.first,
            "finish": self.finish,
            "status": self.status,
            "project": self.project,
            "cached_tokens": self.cached_tokens,
            "price": price_book(self.store).id_for(model, moment),
        }
        usage_log(self.store).add(row)


def usage_log(store: Store) -> RowLog:
    """The usage rows of a database on their way to the disk."""
    return store.remember("usage log", lambda: RowLog(store, usage))


def tokens_since(store: Store, moment: float, by: Column[Any], only: str | None = None) -> dict[str, int]:
    """Tokens used since a moment by each key or project, those of rows on their way to the disk included.

    Args:
        store: the database of the rows.
        moment: Unix seconds.
        by: `usage.c.key_id` or `usage.c.project`; rows without one are left out.
        only: counts nobody else.
    """
    rows = [row for row in usage_log(store).pending() if row["time"] >= moment and row.get(by.name)]
    rows = [row for row in rows if only in (None, row[by.name])]
    known = [row["request_id"] for row in rows[:MOST_KNOWN]]
    total = func.sum(usage.c.prompt_tokens + usage.c.completion_tokens)
    whose = by.is_not(None) if only is None else by == only
    query = (
        select(by.label("name"), total.label("tokens"))
        .where(usage.c.time >= moment, whose, usage.c.request_id.not_in(known))
        .group_by(by)
    )
    used = {str(row.name): int(row.tokens) for row in store.read(query)}
    for row in rows:
        used[row[by.name]] = used.get(row[by.name], 0) + row["prompt_tokens"] + row["completion_tokens"]
    return used
