"""Connections that do not wait for ever: heads and bodies have deadlines, and there are only so many connections.

Uvicorn closes a connection that is idle after an answer; it keeps one for ever whose request is sent by half.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from causerie.serve import limits
from causerie.serve.gate import Gate

MOST_PIECES: Final = 32
"""Pieces gathered before they are sent at once: a slow reader must be noticed."""


class Corked:
    """A transport that sends at the end of the loop's turn what was written in it: head and body in one packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send soon."""
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        if len(self._pieces) >= MOST_PIECES:
            self.flush()

    def flush(self) -> None:
        """Send now."""
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        """Send what is there, then close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class GuardedProtocol(H11Protocol):
    """Uvicorn's connection over h11 (which bounds heads by itself), with deadlines. `check` is called now and then."""

    def __init__(self, *arguments: Any, gate: Gate, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._gate = gate
        self._heard = self._begun = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or end it at once when there are too many or the memory is used up."""
        super().connection_made(cast(asyncio.Transport, Corked(transport, self.loop)))
        self._heard = self._begun = self.loop.time()
        if len(self.connections) > limits.MAX_CONNECTIONS or self._gate.stage >= 3:
            self._gate.refused["connection"] += 1
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes, remembering when a request began."""
        now = self.loop.time()
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._begun = now
        self._heard = now
        super().data_received(data)

    def check(self, now: float) -> None:
        """End the connection when its request is overdue: its head, the next piece of its body, or all of it."""
        state = self.conn.their_state
        if state is h11.IDLE:
            overdue = self._waits_for_a_head() and now - self._begun > limits.HEADER_SECONDS
        elif state is h11.SEND_BODY:
            silent = not self.flow.read_paused and now - self._heard > limits.BODY_SECONDS
            overdue = silent or now - self._begun > limits.REQUEST_SECONDS
        else:
            overdue = False
        if overdue:
            self._gate.refused["half_sent"] += 1
            self.transport.abort()

    def _waits_for_a_head(self) -> bool:
        """Whether a head was begun, or the connection has brought nothing at all yet."""
        return bool(self.conn.trailing_data[0]) or self.cycle is None
