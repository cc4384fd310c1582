"""The engine from another process: asyncio, free of torch, and able to lose its worker and go on.

    client = EngineClient(folder)
    await client.start()
    async for event in client.generate(prompt_ids, Sampling(max_tokens=50)):
        ...
    await client.stop()

When the worker dies it is started again. Requests that have told their caller nothing yet are sent again;
those that have are ended with finish "error". A request that was being computed at two deaths in a row is taken for
the cause and ended too.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, say
from causerie.infer.config import EngineConfig
from causerie.infer.protocol import (
    PROTOCOL,
    Event,
    Finish,
    Sampling,
    decode_message,
    encode_frame,
    frame_length,
    generate_message,
    malformed,
    read_event,
)

WORKER: Final = ("-m", "causerie.infer.worker")
"""What Python is started with."""
START_SECONDS: Final = 300.0
"""How long a worker may take to load its model."""
STARTS_IN_A_ROW: Final = 3
"""Failed starts after which a client that lost its worker gives up."""
DEATHS: Final = 2
"""Worker deaths while a request is being computed after which the request is taken for their cause."""


@dataclass(eq=False)
class _Request:
    message: dict[str, Any]
    events: asyncio.Queue[Event | CauserieError] = field(default_factory=asyncio.Queue)
    admitted: bool = False
    deaths: int = 0
    last: Event | None = None
    """The latest event that the caller was told."""

    def closing(self, finish: Finish) -> Event:
        """A last event that the worker cannot or need not send."""
        last = self.last or Event(self.message["id"], prompt_tokens=len(self.message["prompt_ids"]))
        return replace(last, ids=[], logprobs=[], finish=finish)


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> dict[str, Any]:
        """The next message; EOFError when the worker is gone, CAU-3105 when it breaks the protocol."""
        header = await self.reader.readexactly(4)
        return decode_message(await self.reader.readexactly(frame_length(header)))


class EngineClient:
    """An engine in a child process. One event loop, any number of requests at once.

    Args:
        model: a model or adapter folder.
        config: see `EngineConfig`.
    """

    def __init__(self, model: Path, config: EngineConfig | None = None) -> None:
        self.model = Path(model)
        self.config = config or EngineConfig()
        self.info: dict[str, Any] = {}
        """What the worker told of its engine; empty before the first start. `stop_ids`, `max_seq_len`, `pid`, ..."""
        self.restarts = 0
        """How often the worker was started again after it died."""
        self._worker: _Worker | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._requests: dict[str, _Request] = {}
        self._failure: CauserieError | None = None

    async def start(self) -> None:
        """Start the worker and wait until its model is loaded.

        Raises:
            CauserieError: what the worker said, or CAU-3106 when it ended without a word.
        """
        if self._keeper is None:
            self._failure = None
            self._worker = await self._launch()
            self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the worker; iterators still open raise CAU-3107."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        worker, self._worker = self._worker, None
        if worker is not None:
            await _discard(worker)
        self._end_all(_stopped())

    @property
    def running(self) -> bool:
        """Whether requests are taken: started, not stopped, not given up."""
        return self._keeper is not None and self._failure is None

    async def generate(
        self, prompt_ids: list[int], sampling: Sampling, *, salt: str = "", request_id: str | None = None
    ) -> AsyncIterator[Event]:
        """Complete a prompt: yields an event per step, the last one with `finish`.

        Closing or cancelling the iterator cancels the request in the engine. Stop strings are the caller's work.

        Args:
            prompt_ids: token ids of the prompt.
            sampling: see `Sampling`.
            salt: one per tenant; cached prefixes are shared only within a salt.
            request_id: a name for `cancel`; made up when None.

        Raises:
            CauserieError: CAU-3101 when the engine refuses the prompt, CAU-3104 when the id is in use, CAU-3107
                when the client is stopped or gave up.
        """
        if self._failure is not None or self._keeper is None:
            raise self._failure or _stopped()
        name = request_id or uuid.uuid4().hex
        if name in self._requests:
            raise CauserieError("CAU-3104", f"request {name!r} is already here", fix="give each request its own id")
        request = _Request(generate_message(name, list(prompt_ids), sampling, salt))
        frame = encode_frame(request.message)  # refuses what is too long before anything is noted
        self._requests[name] = request
        try:
            await self._send(frame)
            while True:
                item = await request.events.get()
                if isinstance(item, CauserieError):
                    raise item
                yield item
                if item.finish:
                    return
        finally:
            if self._requests.pop(name, None) is not None:
                self._send_soon({"type": "cancel", "id": name})

    async def cancel(self, request_id: str) -> None:
        """Cancel a request by its name; its iterator ends with finish "cancelled". Unknown names are ignored."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            request.events.put_nowait(request.closing("cancelled"))
            self._send_soon({"type": "cancel", "id": request_id})

    async def _send(self, frame: bytes) -> None:
        if self._worker is not None:
            with suppress(OSError):  # the keeper notices the death and sends again what is due
                self._worker.writer.write(frame)
                await self._worker.writer.drain()

    def _send_soon(self, message: Mapping[str, Any]) -> None:
        if self._worker is not None and not self._worker.writer.is_closing():
            self._worker.writer.write(encode_frame(message))

    async def _launch(self) -> _Worker:
        """Start a worker and read its first message."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, *WORKER, "--model", str(self.model.absolute())]
        command += ["--fd", str(theirs.fileno()), "--config", json.dumps(asdict(self.config))]
        with theirs:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Threads that wait must sleep: spinning ones slow the whole machine, and tenfold when it is busy.
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )
        worker = _Worker(process, *await asyncio.open_connection(sock=ours))
        try:
            message = await asyncio.wait_for(worker.read(), START_SECONDS)
            if message["type"] == "fatal":
                raise _told(message.get("error"))
            if message["type"] != "info" or message.get("protocol") != PROTOCOL:
                raise malformed("the worker's first message is not an info of our version")
        except (EOFError, OSError, TimeoutError) as error:
            await _discard(worker)
            raise _no_start(self.model, process) from error
        except BaseException:
            await _discard(worker)
            raise
        self.info = dict(message["info"])
        return worker

    async def _keep(self) -> None:
        """Read the worker's messages; when it dies, start it again and send what is due."""
        while self._worker is not None:
            worker = self._worker
            try:
                while True:
                    self._handle(await worker.read())
            except Exception as error:  # whatever was wrong with the worker or its messages, a new one is the answer
                say(f"the engine's process ended ({type(error).__name__}: {error}); starting it again")
            self._worker = None
            await _discard(worker)
            self._after_death()
            self._worker = await self._relaunch()
            for request in list(self._requests.values()):
                await self._send(encode_frame(request.message))

    async def _relaunch(self) -> _Worker | None:
        for attempt in range(STARTS_IN_A_ROW):
            await asyncio.sleep(0.5 * attempt)
            try:
                worker = await self._launch()
            except CauserieError as error:
                cause = f"the engine's process could not be started again: {error.cause}"
                failure = CauserieError("CAU-3107", cause, where=str(self.model), fix="see the log on stderr")
            else:
                self.restarts += 1
                return worker
        self._failure = failure
        self._end_all(failure)
        return None

    def _handle(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "events":
            for value in message.get("events", ()):
                self._deliver(read_event(value))
        elif kind == "admitted":
            for name in message.get("ids", ()):
                if name in self._requests:
                    self._requests[name].admitted = True
        elif kind == "refused":
            request = self._requests.pop(str(message.get("id")), None)
            if request is not None:
                request.events.put_nowait(_told(message.get("error")))
        elif kind == "fatal":
            raise _told(message.get("error"))

    def _deliver(self, event: Event) -> None:
        request = self._requests.get(event.request_id)
        if request is not None:
            request.last = event
            request.events.put_nowait(event)
            if event.finish:
                del self._requests[event.request_id]

    def _after_death(self) -> None:
        for name, request in list(self._requests.items()):
            request.deaths += request.admitted
            if request.last is not None or request.deaths >= DEATHS:
                del self._requests[name]
                request.events.put_nowait(request.closing("error"))
            request.admitted = False

    def _end_all(self, error: CauserieError) -> None:
        for request in self._requests.values():
            request.events.put_nowait(error)
        self._requests.clear()


async def _discard(worker: _Worker) -> None:
    """Let go of a worker: close its socket, which ends it, and kill it when it does not end."""
    worker.writer.close()
    with suppress(OSError):
        await worker.writer.wait_closed()
    for _ in range(100):
        if worker.process.poll() is not None:
            return
        await asyncio.sleep(0.02)
    worker.process.kill()
    await asyncio.to_thread(worker.process.wait)


def _stopped() -> CauserieError:
    return CauserieError("CAU-3107", "the engine is stopped", fix="start it before asking")


def _no_start(model: Path, process: subprocess.Popen[bytes]) -> CauserieError:
    status = process.poll()
    how = "took too long to load" if status is None else f"ended with status {status} before its model was loaded"
    return CauserieError("CAU-3106", f"the engine's process {how}", where=str(model), fix="see the log on stderr")


def _told(value: Any) -> CauserieError:
    """The error in a worker's message."""
    if not isinstance(value, dict):
        return malformed("an error that is not an object")
    parts = {name: str(value.get(name, "")) for name in ("code", "cause", "where", "fix")}
    return CauserieError(parts["code"], parts["cause"], where=parts["where"], fix=parts["fix"])
