"""Metering: one row of usage for each request that reached an engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol

from sqlalchemy import insert

from causerie.serve.errors import as_api_error
from causerie.serve.pool import ServedVersion
from causerie.store import Store, new_id, now, usage

CLIENT_GONE: Final = 499
"""Status recorded for a request whose client left (nobody receives it)."""

_INSERT: Final = insert(usage)

log = logging.getLogger("causerie.serve")


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


@dataclass
class Meter:
    """Counts one request; leaving its block writes its row. Tokens are counted as they are drawn, broken streams too.

    Attributes:
        request_id: also sent as the `x-request-id` header.
        status: HTTP status; 499 when the client left before the end.
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
    first: float | None = None
    started: float = field(default_factory=time.monotonic)

    def count(self, delta: Counted, prompt_length: int = 0) -> None:
        """Add what one delta brought; `prompt_length` only with an answer's first."""
        self.version = delta.version
        self.prompt_tokens += prompt_length
        self.completion_tokens += len(delta.ids)
        self.finish = delta.finish or self.finish
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
        if self.store is None:
            return
        row: dict[str, Any] = {
            "request_id": self.request_id,
            "time": now(),
            "key_id": self.key_id,
            "route": self.route,
            "model": self.version.label if self.version else None,
            "version_key": self.version.key if self.version else None,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "latency": time.monotonic() - self.started,
            "ttft": self.first,
            "finish": self.finish,
            "status": self.status,
        }
        self.store.submit((_INSERT, [row])).add_done_callback(_report)


def _report(written: Future[int]) -> None:
    error = written.exception()
    if error is not None:
        log.error("a row of usage was not written: %s", error)
