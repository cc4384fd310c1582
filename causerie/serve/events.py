"""Work that ends when the client leaves, and event streams (SSE) with heartbeats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.limits import HEARTBEAT_SECONDS, SEND_SECONDS

T = TypeVar("T")

DONE: Final = b"data: [DONE]\n\n"
HEARTBEAT: Final = b": still working\n\n"
QUEUED: Final = 64
"""Events drawn ahead of a slow reader, at most; beyond it the engine's work on the answer waits."""


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work of an answer, cancelling it when the client leaves first.

    Raises:
        ClientGone: when it does.
    """
    worker, gone = asyncio.current_task(), False
    assert worker is not None

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        worker.cancel()

    watcher = asyncio.create_task(watch())
    try:
        result = await work
        if gone:  # it left in the same moment: the cancellation is still to come
            await asyncio.sleep(0)
        return result
    except asyncio.CancelledError:
        if not gone or worker.uncancel():
            raise
        raise ClientGone from None
    finally:
        watcher.cancel()


def frame(value: Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event with a JSON object; `name` is its event type."""
    data = b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


async def closed_off(
    first: bytes, frames: AsyncGenerator[bytes, None], last: bytes = DONE
) -> AsyncGenerator[bytes, None]:
    """A stream's events from the first one, already drawn, to its end: what goes wrong becomes an event too."""
    yield first
    try:
        async with aclosing(frames) as stream:
            async for piece in stream:
                yield piece
    except Exception as error:  # the status line is sent already: the error goes into the stream
        yield frame(as_api_error(error).body())
    if last:
        yield last


async def numbered(events: AsyncGenerator[bytes, None], begin: int) -> AsyncGenerator[bytes, None]:
    """The events with SSE ids from `begin` on, by which a client can ask for the rest."""
    async with aclosing(events) as stream:
        number = begin
        async for event in stream:
            yield b"id: %d\n" % number + event
            number += 1


class Drain:
    """Tells that the server is ending: after `announce` it is not ready, after `begin` no new work is taken, after
    `cut` open streams end."""

    def __init__(self) -> None:
        self.leaving = False
        self.draining = False
        self._streams: set[asyncio.Task[Any]] = set()

    def announce(self) -> None:
        """Be ready no longer: who asks is told to go elsewhere, and is still served."""
        self.leaving = True

    def begin(self) -> None:
        """Take no new work."""
        self.leaving = self.draining = True

    def cut(self) -> None:
        """End the streams that are still open, each with an error event."""
        for task in list(self._streams):
            task.cancel()

    @property
    def streams(self) -> int:
        """Streams under way."""
        return len(self._streams)

    def add(self, task: asyncio.Task[Any]) -> None:
        """Know a stream's task until it is done."""
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)


class EventStream(Response):
    """An answer as server-sent events.

    Frames come from a generator, which is closed when the client leaves or reads too slowly. An error after the first
    byte becomes an error event before `[DONE]`. While nothing comes, a comment every ten seconds keeps the connection.

    Args:
        first: the first event, drawn already: what can be refused was refused before it.
        frames: the further events as bytes.
        drain: see `Drain`.
        headers: further response headers.
        last: what ends the stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: bytes,
        frames: AsyncGenerator[bytes, None],
        drain: Drain,
        headers: Mapping[str, str],
        last: bytes = DONE,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._first = first
        self._frames = frames
        self._drain = drain
        self._last = last
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]

    @classmethod
    async def begun(
        cls,
        frames: AsyncGenerator[bytes, None],
        drain: Drain,
        headers: Mapping[str, str],
        last: bytes = DONE,
        *,
        receive: Receive | None = None,
    ) -> EventStream:
        """The answer once its first event is drawn; `headers` may be filled by then.

        With `receive` a client that leaves before, while it waits for its turn, ends it.

        Raises:
            ApiError: what the generator raises before its first event, as a plain answer.
            ClientGone: when the client left.
        """

        async def begin() -> bytes:
            return await anext(frames)

        try:
            first = await (begin() if receive is None else until_gone(receive, begin()))
        except BaseException:
            await frames.aclose()
            raise
        return cls(first, frames, drain, headers, last)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the last one or until the client leaves."""
        try:
            with suppress(ClientGone):
                await until_gone(receive, self._send_all(send))
        finally:
            await self._frames.aclose()

    async def _send_all(self, send: Send) -> None:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED)
        producer = asyncio.create_task(self._produce(queue))
        self._drain.add(producer)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (piece := await self._next(queue)) is not None:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError as error:
            raise ClientGone from error
        finally:
            producer.cancel()
            await asyncio.gather(producer, return_exceptions=True)

    async def _next(self, queue: asyncio.Queue[bytes | None]) -> bytes | None:
        """What is to be sent next: all that is ready, or a heartbeat; None at the end."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                piece = await queue.get()
        except TimeoutError:
            return HEARTBEAT
        if piece is None:
            return None
        ready = [piece]
        while not queue.empty():
            more = queue.get_nowait()
            if more is None:
                queue.put_nowait(None)
                break
            ready.append(more)
        return b"".join(ready)

    async def _produce(self, queue: asyncio.Queue[bytes | None]) -> None:
        last = self._last
        await queue.put(self._first)
        try:
            async with aclosing(self._frames) as frames:
                async for piece in frames:
                    await queue.put(piece)
        except asyncio.CancelledError:
            if not self._drain.draining:
                raise
            ending = ApiError(503, "the server is stopping", type="server_error", code="server_stopping")
            last = frame(ending.body()) + self._last
        except Exception as error:  # the status line is sent already: the error goes into the stream
            last = frame(as_api_error(error).body()) + self._last
        await queue.put(last)
        await queue.put(None)
