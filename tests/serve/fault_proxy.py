"""A proxy on loopback that spoils connections on purpose: slow, dripping, cut, half closed, or silent.

Connections go to the replicas in turn. Which fault the next connection gets is set from outside.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import Final

FAULTS: Final = ("none", "delay", "drip", "cut request", "cut answer", "half close", "silence")
"""What can happen to a connection: nothing; every piece comes late; one byte at a time; cut in the request, or in the
answer; the client's side is closed when the request is sent; the answer stops for ever without a close."""
CUT_AFTER: Final = 120
"""Bytes that pass before a cut or a silence."""


class FaultProxy:
    """Passes bytes between clients and replicas, with the fault that `fault` names for new connections."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.fault = "none"
        self.port = 0
        self._ports = cycle(ports)

    async def serve(self, ready: threading.Event) -> None:
        """Pass connections on until `close`."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await self._stop.wait()

    def close(self) -> None:
        """End it, from another thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self.fault
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", next(self._ports))
        except OSError:
            writer.transport.abort()
            return
        there = asyncio.create_task(self._pass(reader, up_writer, fault, "request"))
        back = asyncio.create_task(self._pass(up_reader, writer, fault, "answer"))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            if fault == "half close" and not back.done():
                await asyncio.wait([back], timeout=30)
        finally:
            for task in (there, back):
                task.cancel()
            for each in (up_writer, writer):
                each.transport.abort() if fault.startswith("cut") else each.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: str, direction: str
    ) -> None:
        seen = 0
        with suppress(OSError):
            while piece := await reader.read(65_536):
                if fault == "delay":
                    await asyncio.sleep(0.05)
                if fault == f"cut {direction}" and seen + len(piece) > CUT_AFTER:
                    piece = piece[: CUT_AFTER - seen]
                    writer.write(piece)
                    await writer.drain()
                    return
                if fault == "silence" and direction == "answer" and seen + len(piece) > CUT_AFTER:
                    await asyncio.sleep(3600)
                for each in [piece[at : at + 1] for at in range(len(piece))] if fault == "drip" else [piece]:
                    writer.write(each)
                    await writer.drain()
                    if fault == "drip":
                        await asyncio.sleep(0)
                seen += len(piece)
                if fault == "half close" and direction == "request":
                    writer.write_eof()
                    return


@contextmanager
def fault_proxy(ports: Sequence[int]) -> Iterator[FaultProxy]:
    """A proxy in a thread of its own, in front of replicas on these ports."""
    proxy, ready = FaultProxy(ports), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(ready)), daemon=True)
    thread.start()
    assert ready.wait(120)
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(60)
