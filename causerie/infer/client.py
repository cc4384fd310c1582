"""The engine from another process: asyncio, free of torch, and able to lose its worker and go on.

    client = EngineClient(folder)
    await client.start()
    async for event in client.generate(prompt_ids, Sampling(max_tokens=50)):
        ...
    await client.stop()

When the worker dies it is started again, with its adapters. Requests that have told their caller nothing yet are sent
again; those that have are ended with finish "error". A request that was being computed at two deaths is taken for the
cause: it is ended, and refused when it comes again.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, say
from causerie.infer.config import EngineConfig
from causerie.infer.process import WorkerProcess, load, spawn, told
from causerie.infer.protocol import embed_message, encode_frame, generate_message, read_event
from causerie.infer.request import Event, Finish, Pooling, Sampling

STARTS_IN_A_ROW: Final = 3
"""Failed starts after which a client that lost its worker gives up."""
DEATHS: Final = 2
"""Worker deaths while a request is being computed after which the request is taken for their cause."""
POISON_SECONDS: Final = 600.0
"""How long such a request is refused after that."""
SPARE_AFTER: Final = 5.0
"""Seconds after a start when the spare process is started: not while the first requests want the processor."""
MAX_POISON: Final = 1000
"""Requests under suspicion remembered, the latest."""


@dataclass(eq=False)
class _Request:
    message: dict[str, Any]
    digest: bytes
    events: asyncio.Queue[Event | CauserieError] = field(default_factory=asyncio.Queue)
    admitted: bool = False
    last: Event | None = None
    """The latest event that the caller was told."""

    def closing(self, finish: Finish) -> Event:
        """A last event that the worker cannot or need not send."""
        last = self.last or Event(self.message["id"], prompt_tokens=len(self.message["prompt_ids"]))
        return replace(
            last, ids=[], logprobs=[], top_logprobs=[], prompt_logprobs=None, prompt_top_logprobs=None, finish=finish
        )


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
        self.stats: dict[str, int] = {}
        """What the worker last told of its work, see `Engine.stats`; counts begin anew when it is started again."""
        self.restarts = 0
        """How often the worker was started again after it died."""
        self._worker: WorkerProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._requests: dict[str, _Request] = {}
        self._calls: dict[str, tuple[dict[str, Any], asyncio.Future[Any]]] = {}
        self._adapters: dict[str, Path] = {}
        self._deaths: dict[bytes, tuple[int, float]] = {}
        """By digest of a request: worker deaths while it was computed, and when the last one was."""
        self._failure: CauserieError | None = None
        self._spare: asyncio.Task[WorkerProcess] | None = None

    async def start(self) -> None:
        """Start the worker and wait until its model is loaded.

        Raises:
            CauserieError: what the worker said, or CAU-3106 when it ended without a word.
        """
        if self._keeper is None:
            self._failure = None
            self._take(await load(await spawn(), self.model, self.config))
            self._keeper = asyncio.create_task(self._keep())
            self._prepare_spare()

    async def stop(self) -> None:
        """End the worker; iterators still open raise CAU-3107."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        for worker in (self._worker, await self._take_spare()):
            if worker is not None:
                await worker.discard()
        self._worker = None
        self._end_all(_stopped())

    @property
    def running(self) -> bool:
        """Whether requests are taken: started, not stopped, not given up."""
        return self._keeper is not None and self._failure is None

    async def generate(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        *,
        salt: str = "",
        request_id: str | None = None,
        priority: int = 0,
    ) -> AsyncIterator[Event]:
        """Complete a prompt: yields an event per step, the last one with `finish`.

        Closing or cancelling the iterator cancels the request in the engine. Stop strings are the caller's work.

        Args:
            prompt_ids: token ids of the prompt.
            sampling: see `Sampling`.
            salt: one per tenant; cached prefixes are shared only within a salt.
            request_id: a name for `cancel`; made up when None.
            priority: requests of a higher one leave the queue first.

        Raises:
            CauserieError: CAU-3101 when the engine refuses the prompt, CAU-3104 when the id is in use, CAU-3107
                when the client is stopped or gave up, CAU-3109 when the same request ended the worker twice,
                CAU-3110 for a grammar and CAU-3111 for an adapter that cannot be used.
        """
        name = request_id or uuid.uuid4().hex
        async for event in self._stream(generate_message(name, list(prompt_ids), sampling, salt, priority)):
            yield event

    async def embed(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "mean",
        adapter: str | None = None,
        salt: str = "",
    ) -> list[list[float]]:
        """Embed texts given as token ids, all at once; vectors of length 1 in the order given.

        Raises:
            CauserieError: as `generate`.
        """
        names = [uuid.uuid4().hex for _ in inputs]
        messages = [
            embed_message(name, list(ids), pooling, adapter, salt) for name, ids in zip(names, inputs, strict=True)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._embed(message)) for message in messages]
        found = [task.result() for task in tasks]
        for item in found:
            if isinstance(item, CauserieError):
                raise item
        return [item for item in found if not isinstance(item, CauserieError)]

    async def _embed(self, message: dict[str, Any]) -> list[float] | CauserieError:
        last = None
        try:
            async for event in self._stream(message):
                last = event
        except CauserieError as error:
            return error
        if last is None or last.embedding is None:
            return CauserieError("CAU-3107", "the engine's process ended while it embedded", fix="try again")
        return last.embedding

    async def cancel(self, request_id: str) -> None:
        """Cancel a request by its name; its iterator ends with finish "cancelled". Unknown names are ignored."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            request.events.put_nowait(request.closing("cancelled"))
            self._send_soon({"type": "cancel", "id": request_id})

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter that requests may name; loaded again whenever the worker is.

        Raises:
            CauserieError: CAU-3111 when the name is in use, CAU-3008 when the adapter does not fit, CAU-3107.
        """
        await self._call({"type": "load_adapter", "name": name, "folder": str(Path(folder).absolute())})
        self._adapters[name] = Path(folder).absolute()
        self.info["adapters"] = sorted(self._adapters)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; running requests keep it to their end.

        Raises:
            CauserieError: CAU-3111 when there is none of that name, CAU-3107.
        """
        await self._call({"type": "unload_adapter", "name": name})
        self._adapters.pop(name, None)
        self.info["adapters"] = sorted(self._adapters)

    async def update_weights(self, folder: Path) -> None:
        """Go on with the weights of another folder, of the same shape; see `Engine.update_weights`.

        Raises:
            CauserieError: CAU-3108 when the shape is another one, CAU-300x when they cannot be loaded, CAU-3107.
        """
        await self._call({"type": "update_weights", "folder": str(Path(folder).absolute())})
        self.model = Path(folder)

    async def _stream(self, message: dict[str, Any]) -> AsyncIterator[Event]:
        self._check_running()
        name = message["id"]
        if name in self._requests:
            raise CauserieError("CAU-3104", f"request {name!r} is already here", fix="give each request its own id")
        request = _Request(message, _digest(message))
        if self._is_poison(request):
            cause = "this very request ended the engine's process twice"
            raise CauserieError("CAU-3109", cause, fix="change the request, and report it")
        frame = encode_frame(message)  # refuses what is too long before anything is noted
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

    async def _call(self, message: dict[str, Any]) -> Any:
        """Send a message that is answered by one reply; a call that the worker does not survive is not repeated."""
        self._check_running()
        name = uuid.uuid4().hex
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[name] = (message, answer)
        try:
            await self._send(encode_frame({**message, "id": name}))
            return await answer
        finally:
            self._calls.pop(name, None)

    def _check_running(self) -> None:
        if self._failure is not None or self._keeper is None:
            raise self._failure or _stopped()

    async def _send(self, frame: bytes) -> None:
        if self._worker is not None:
            with suppress(OSError):  # the keeper notices the death and sends again what is due
                self._worker.writer.write(frame)
                await self._worker.writer.drain()

    def _send_soon(self, message: Mapping[str, Any]) -> None:
        if self._worker is not None and not self._worker.writer.is_closing():
            self._worker.writer.write(encode_frame(message))

    def _take(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self.info = {**worker.info, "adapters": sorted(self._adapters)}

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
            self._after_death()
            _, worker_again = await asyncio.gather(worker.discard(), self._relaunch())
            if worker_again is None:
                return
            self._take(worker_again)
            self._prepare_spare()
            for name, folder in self._adapters.items():
                await self._send(encode_frame({"type": "load_adapter", "id": "", "name": name, "folder": str(folder)}))
            for request in list(self._requests.values()):
                await self._send(encode_frame(request.message))

    async def _relaunch(self) -> WorkerProcess | None:
        for attempt in range(STARTS_IN_A_ROW):
            await asyncio.sleep(0.5 * attempt)
            try:
                worker = await load(await self._take_spare() or await spawn(), self.model, self.config)
            except CauserieError as error:
                cause = f"the engine's process could not be started again: {error.cause}"
                failure = CauserieError("CAU-3107", cause, where=str(self.model), fix="see the log on stderr")
            else:
                self.restarts += 1
                return worker
        self._failure = failure
        self._end_all(failure)
        return None

    def _prepare_spare(self) -> None:
        """Have a process at hand that has imported torch, most of the time that a new worker takes."""

        async def later() -> WorkerProcess:
            await asyncio.sleep(SPARE_AFTER)
            return await spawn()

        if self.config.spare:
            self._spare = asyncio.create_task(later())

    async def _take_spare(self) -> WorkerProcess | None:
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        if not spare.done():
            spare.cancel()
        (found,) = await asyncio.gather(spare, return_exceptions=True)
        return None if isinstance(found, BaseException) or found.process.poll() is not None else found

    def _handle(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "events":
            for value in message.get("events", ()):
                self._deliver(read_event(value))
            if "stats" in message:
                self.stats = {str(name): int(value) for name, value in dict(message["stats"]).items()}
        elif kind == "admitted":
            for name in message.get("ids", ()):
                if name in self._requests:
                    self._requests[name].admitted = True
        elif kind in ("reply", "refused"):
            self._answer(str(message.get("id")), message)
        elif kind == "fatal":
            raise told(message.get("error"))

    def _answer(self, name: str, message: Mapping[str, Any]) -> None:
        error = told(message.get("error")) if message["type"] == "refused" else None
        if name in self._calls:
            _, answer = self._calls[name]
            if error is None:
                answer.set_result(message.get("value"))
            else:
                answer.set_exception(error)
        request = self._requests.pop(name, None)
        if request is not None and error is not None:
            request.events.put_nowait(error)

    def _deliver(self, event: Event) -> None:
        request = self._requests.get(event.request_id)
        if request is not None:
            request.last = event
            request.events.put_nowait(event)
            if event.finish:
                del self._requests[event.request_id]
                self._deaths.pop(request.digest, None)

    def _is_poison(self, request: _Request) -> bool:
        count, when = self._deaths.get(request.digest, (0, 0.0))
        return count >= DEATHS and time.monotonic() - when < POISON_SECONDS

    def _after_death(self) -> None:
        # Once for requests that are alike, such as the choices of one: they saw one death, not several.
        for digest in dict.fromkeys(item.digest for item in self._requests.values() if item.admitted):
            count, _ = self._deaths.pop(digest, (0, 0.0))
            self._deaths[digest] = count + 1, time.monotonic()
        for name, request in list(self._requests.items()):
            if request.last is not None or self._is_poison(request):
                del self._requests[name]
                request.events.put_nowait(request.closing("error"))
            request.admitted = False
        for digest in list(self._deaths)[:-MAX_POISON]:
            del self._deaths[digest]
        for _, answer in self._calls.values():
            answer.set_exception(CauserieError("CAU-3107", "the engine's process ended meanwhile", fix="try again"))
        self._calls.clear()

    def _end_all(self, error: CauserieError) -> None:
        for request in self._requests.values():
            request.events.put_nowait(error)
        self._requests.clear()
        for _, answer in self._calls.values():
            answer.set_exception(error)
        self._calls.clear()


def _digest(message: Mapping[str, Any]) -> bytes:
    """What stands for a request whatever its name: 16 bytes of its prompt and settings."""
    return blake2b(encode_frame({**message, "id": ""}), digest_size=16).digest()


def _stopped() -> CauserieError:
    return CauserieError("CAU-3107", "the engine is stopped", fix="start it before asking")
