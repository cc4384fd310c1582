"""The client as a state machine: starts, tokens, cancellations and deaths of the worker in any order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from causerie.core import CauserieError
from causerie.infer import EngineClient, EngineConfig, Sampling
from causerie.infer.client import DEATHS
from causerie.infer.protocol import FrameBuffer


class ScriptedWorker:
    """What the client holds of a worker, without a process: it notes what it is sent and says what it is told to."""

    def __init__(self) -> None:
        self.process = SimpleNamespace(poll=lambda: None)
        self.info = {"pid": 0}
        self.says: asyncio.Queue[dict[str, Any] | BaseException] = asyncio.Queue()
        self.heard: list[dict[str, Any]] = []
        self.closed = False
        self._buffer = FrameBuffer()
        self.writer = self

    def write(self, data: bytes) -> None:
        self.heard += self._buffer.push(data)

    async def drain(self) -> None:
        if self.closed:
            raise ConnectionResetError

    def is_closing(self) -> bool:
        return self.closed

    async def discard(self) -> None:
        self.closed = True

    async def read(self) -> dict[str, Any]:
        said = await self.says.get()
        if isinstance(said, BaseException):
            raise said
        return said

    def generated(self) -> list[str]:
        return [message["id"] for message in self.heard if message["type"] == "generate"]


@dataclass
class Expected:
    """What the model of the client knows of a request."""

    kind: int
    task: asyncio.Task[list[Any]]
    admitted: bool = False
    told: int = 0
    ending: str = ""


@dataclass
class World:
    """A client on scripted workers, and what should be true of it."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    workers: list[ScriptedWorker] = field(default_factory=list)
    requests: dict[str, Expected] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)

    @property
    def live(self) -> list[str]:
        return [name for name, item in self.requests.items() if not item.ending]


class ClientMachine(RuleBasedStateMachine):
    """Every request ends exactly once and rightly; what can survive a death does; nobody pays for another."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

        async def spawn() -> ScriptedWorker:
            self.world.workers.append(ScriptedWorker())
            return self.world.workers[-1]

        async def load(worker: ScriptedWorker, *_: Any) -> ScriptedWorker:
            return worker

        self.patches = [mock.patch(f"causerie.infer.client.{part.__name__}", part) for part in (spawn, load)]
        self.patches.append(mock.patch("causerie.infer.client.say", return_value=None))
        for patch in self.patches:
            patch.start()
        self.client = EngineClient(Path("nowhere"), EngineConfig(spare=False))
        self.world.loop.run_until_complete(self.client.start())

    @property
    def worker(self) -> ScriptedWorker:
        return self.world.workers[-1]

    def settle(self) -> None:
        async def wait() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.world.loop.run_until_complete(wait())

    def say(self, message: dict[str, Any] | BaseException) -> None:
        self.worker.says.put_nowait(message)
        self.settle()

    def pick(self, data: Any, admitted: bool = False) -> str | None:
        names = [name for name in self.world.live if self.world.requests[name].admitted or not admitted]
        return data.draw(st.sampled_from(names)) if names else None

    async def follow(self, name: str, kind: int) -> list[Any]:
        stream = self.client.generate([kind], Sampling(), request_id=name)
        return [event async for event in stream]

    @rule(kind=st.integers(0, 2))
    def start(self, kind: int) -> None:
        name = f"r{len(self.world.requests)}"
        self.world.requests[name] = item = Expected(kind, self.world.loop.create_task(self.follow(name, kind)))
        self.settle()
        if self.world.deaths.get(kind, 0) >= DEATHS:
            item.ending = "CAU-3109"
        assert (name in self.worker.generated()) == (not item.ending)

    @rule(data=st.data())
    def admit(self, data: Any) -> None:
        name = self.pick(data)
        if name:
            self.world.requests[name].admitted = True
            self.say({"type": "admitted", "ids": [name, "unknown"]})

    @rule(data=st.data())
    def token(self, data: Any) -> None:
        name = self.pick(data, admitted=True)
        if name:
            self.world.requests[name].told += 1
            self.say({"type": "events", "events": [{"request_id": name, "ids": [7]}]})

    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        name = self.pick(data, admitted=True)
        if name:
            item = self.world.requests[name]
            item.ending = "stop"
            self.world.deaths.pop(item.kind, None)
            self.say({"type": "events", "events": [{"request_id": name, "ids": [8], "finish": "stop"}]})

    @rule(data=st.data())
    def refuse(self, data: Any) -> None:
        name = self.pick(data)
        if name and not self.world.requests[name].admitted:
            self.world.requests[name].ending = "CAU-3101"
            self.say({"type": "refused", "id": name, "error": {"code": "CAU-3101", "cause": "no"}})

    @rule(data=st.data(), by_name=st.booleans())
    def leave(self, data: Any, by_name: bool) -> None:
        name = self.pick(data)
        if name:
            item = self.world.requests[name]
            item.ending = "cancelled" if by_name else "left"
            if by_name:
                self.world.loop.run_until_complete(self.client.cancel(name))
            else:
                item.task.cancel()
            self.settle()
            assert {"type": "cancel", "id": name} in self.worker.heard

    @rule(how=st.sampled_from([EOFError(), OSError(), CauserieError("CAU-3105", "nonsense")]))
    @precondition(lambda self: len(self.world.workers) < 6)
    def die(self, how: BaseException) -> None:
        before, world = len(self.world.workers), self.world
        living = [world.requests[name] for name in world.live]
        for kind in {item.kind for item in living if item.admitted}:
            world.deaths[kind] = world.deaths.get(kind, 0) + 1
        for item in living:
            if item.told or world.deaths.get(item.kind, 0) >= DEATHS:
                item.ending = "error"
            item.admitted = False
        self.say(how)
        assert len(world.workers) == before + 1
        assert self.worker.generated() == world.live
        assert self.client.restarts == before

    @rule()
    def a_late_word_about_somebody_gone(self) -> None:
        self.say({"type": "events", "events": [{"request_id": "gone", "ids": [1], "finish": "stop"}]})

    @invariant()
    def every_request_is_where_it_should_be(self) -> None:
        assert list(self.client._requests) == self.world.live
        for name, item in self.world.requests.items():
            assert item.task.done() == bool(item.ending), name
            if item.ending:
                self.check_ending(item)

    def check_ending(self, item: Expected) -> None:
        if item.ending == "left":
            assert item.task.cancelled()
        elif item.ending.startswith("CAU"):
            error = item.task.exception()
            assert isinstance(error, CauserieError)
            assert error.code == item.ending
        else:
            events = item.task.result()
            assert [event.finish for event in events] == [None] * item.told + [item.ending]

    def teardown(self) -> None:
        self.world.loop.run_until_complete(self.client.stop())
        self.settle()
        for name in self.world.live:
            error = self.world.requests[name].task.exception()
            assert isinstance(error, CauserieError)
            assert error.code == "CAU-3107"
        self.world.loop.close()
        for patch in self.patches:
            patch.stop()


TestClientMachine = ClientMachine.TestCase
TestClientMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_choices_of_one_request_share_its_deaths() -> None:
    """Two equal requests at one death are no poison: both are sent again."""
    machine = ClientMachine()
    try:
        for name in ("r0", "r1"):
            machine.start(kind=1)
            machine.world.requests[name].admitted = True
            machine.say({"type": "admitted", "ids": [name]})
        machine.die(how=EOFError())
        assert machine.worker.generated() == ["r0", "r1"]
    finally:
        machine.teardown()


def test_the_machine_notices_a_client_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test itself: a client that does not send again what was waiting is caught."""
    machine = ClientMachine()
    machine.start(kind=0)
    monkeypatch.setattr(EngineClient, "_after_death", lambda self: self._requests.clear())
    with pytest.raises(AssertionError):
        machine.die(how=EOFError())
    monkeypatch.undo()
    machine.world.requests["r0"].task.cancel()
    machine.settle()
    machine.world.requests["r0"].ending = "left"
    machine.teardown()
