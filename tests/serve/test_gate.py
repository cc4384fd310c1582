"""The gate as a state machine: whatever begins, fails, waits too long or is cancelled, everything is given back."""

from __future__ import annotations

import asyncio
import mmap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from causerie.core import CauserieError
from causerie.serve import ApiError, Asking, Gate, Limits
from causerie.serve.fair import FairQueue
from causerie.serve.quota import DAY, Bucket, Quotas

KEYS = st.sampled_from(["a", "b", "c"])


@dataclass
class Used:
    """What a request used."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


def in_a_loop(test: Callable[[], Any]) -> Callable[[], None]:
    """A test in an event loop of its own."""

    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class GateMachine(RuleBasedStateMachine):
    """Requests of three keys at a small gate; the model is the list of those that are in."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.gate = Gate(max_answers=8, max_tokens=200, max_per_key=4, max_running=3, queue_seconds=3600)
        self.gate.quotas = Quotas(self.clock)
        self.limits = Limits(tokens_per_minute=300, requests_per_minute=12)
        self.inside: dict[asyncio.Task[Any], tuple[str, int, int, asyncio.Future[int | None], list[bool]]] = {}
        self.taken = Counter[str]()

    def teardown(self) -> None:
        """End what is in; nothing may be left."""
        for task in list(self.inside):
            self._end(task, lambda future, task: task.cancel())
        gate = self.gate
        assert (gate.answers, gate.tokens, +gate.by_key, +gate.by_tenant, gate.waiting) == (0, 0, {}, {}, 0)
        assert all(lane.free == lane.slots for lane in gate._lanes.values())
        self.clock.now = max([bucket.at for bucket in gate.quotas._kept.values()], default=0.0) + 120
        for (_, kind), bucket in gate.quotas._kept.items():
            assert bucket.wait_for(300 if kind == "tokens_per_minute" else 12, self.clock.now) == 0
        self.loop.close()

    def _turn(self) -> None:
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(key=KEYS, answers=st.integers(1, 4), tokens=st.integers(1, 120), seconds=st.sampled_from([None, 0.0]))
    def begin(self, key: str, answers: int, tokens: int, seconds: float | None) -> None:
        """A request comes."""
        future: asyncio.Future[int | None] = self.loop.create_future()
        entered = [False]
        used = Used()

        async def work() -> None:
            asking = Asking(key, key, ((key, self.limits, 0),), seconds)
            async with self.gate.admit(asking, answers, tokens, "engine", used):
                entered[0] = True
                used.completion_tokens = await future or 0
                if used.completion_tokens < 0:
                    used.completion_tokens = 0
                    raise RuntimeError("the engine died")

        task = self.loop.create_task(work())
        self.inside[task] = (key, answers, tokens, future, entered)
        self._turn()
        if seconds == 0.0 and not entered[0] and not task.done():
            self.loop.run_until_complete(asyncio.sleep(0.001))
            self._turn()
        if task.done():
            error = task.exception()
            assert isinstance(error, ApiError | CauserieError)
            del self.inside[task]

    @rule(data=st.data(), how=st.sampled_from(["done", "fail", "cancel"]))
    def end(self, data: st.DataObject, how: str) -> None:
        """A request that is in, or waits, ends."""
        if not self.inside:
            return
        task = data.draw(st.sampled_from(list(self.inside)))
        tokens, entered = self.inside[task][2], self.inside[task][4]
        if how == "cancel" or not entered[0]:
            self._end(task, lambda future, task: task.cancel())
        else:
            used = data.draw(st.integers(0, tokens)) if how == "done" else -1
            self._end(task, lambda future, task: future.set_result(used))

    def _end(
        self, task: asyncio.Task[Any], how: Callable[[asyncio.Future[int | None], asyncio.Task[Any]], None]
    ) -> None:
        how(self.inside[task][3], task)
        self._turn()
        assert task.done()
        if not task.cancelled():
            assert task.exception() is None or isinstance(task.exception(), RuntimeError)
        del self.inside[task]

    @rule(seconds=st.floats(-3600, 60))
    def time_passes(self, seconds: float) -> None:
        """The clock goes on, or back."""
        self.clock.now += seconds

    @invariant()
    def counts_are_what_is_in(self) -> None:
        """The gate's counts equal the model."""
        rows = [row[:3] for row in self.inside.values()]
        assert self.gate.answers == sum(answers for _, answers, _ in rows) <= 8
        assert self.gate.tokens == sum(tokens for _, _, tokens in rows)
        assert len(rows) <= 1 or self.gate.tokens <= 200
        for key in "abc":
            assert self.gate.by_key[key] == sum(answers for name, answers, _ in rows if name == key) <= 4
            assert self.gate.by_tenant[key] == sum(tokens for name, _, tokens in rows if name == key)
        running = sum(min(answers, 3) for _, answers, _, _, entered in self.inside.values() if entered[0])
        lane = self.gate._lanes.get("engine")
        assert lane is None or lane.slots - lane.free == running <= 3


GateMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestGateMachine = GateMachine.TestCase


class CancelMachine(RuleBasedStateMachine):
    """Cancelling one request never touches another: each owns its slot, told by its own task alone."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue = FairQueue(2)
        self.tasks: list[asyncio.Task[None]] = []
        self.ended: set[asyncio.Task[None]] = set()
        self.running: list[asyncio.Task[None]] = []

    @rule(tenant=KEYS, slots=st.integers(1, 3), cost=st.integers(1, 50))
    def ask(self, tenant: str, slots: int, cost: int) -> None:
        """Somebody asks for a turn."""

        async def hold() -> None:
            async with self.queue.turn(tenant, slots, cost, None):
                me = asyncio.current_task()
                assert me is not None
                self.running.append(me)
                try:
                    await asyncio.Event().wait()
                finally:
                    self.running.remove(me)

        self.tasks.append(self.loop.create_task(hold()))
        self._turn()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """One of them leaves."""
        live = [task for task in self.tasks if task not in self.ended]
        if live:
            task = data.draw(st.sampled_from(live))
            task.cancel()
            self.ended.add(task)
            self._turn()

    def _turn(self) -> None:
        for _ in range(4):
            self.loop.run_until_complete(asyncio.sleep(0))

    @invariant()
    def only_the_cancelled_end(self) -> None:
        """Who did not leave is there, and no slot is idle while a turn that fits is waited for."""
        assert {task for task in self.tasks if task.done()} == self.ended
        assert self.queue.waiting == len(self.tasks) - len(self.ended) - len(self.running)
        first = self.queue._next()
        assert (first is None) == (self.queue.waiting == 0)
        assert first is None or self.queue.free < first[2].slots

    def teardown(self) -> None:
        """All leave."""
        for task in self.tasks:
            task.cancel()
        self._turn()
        assert (self.queue.free, self.queue.waiting, self.running) == (2, 0, [])
        self.loop.close()


CancelMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestCancelMachine = CancelMachine.TestCase


@in_a_loop
async def test_a_crowd_delays_another_tenant_by_a_turn_or_two() -> None:
    queue, order = FairQueue(1), []

    async def one(tenant: str) -> None:
        async with queue.turn(tenant, 1, 10, None):
            order.append(tenant)
            await asyncio.sleep(0)

    crowd = [asyncio.create_task(one("crowd")) for _ in range(50)]
    await asyncio.sleep(0)
    late = asyncio.create_task(one("late"))
    await asyncio.gather(*crowd, late)
    assert order.index("late") <= 3


@in_a_loop
async def test_costly_requests_have_fewer_turns() -> None:
    queue, order = FairQueue(1), []

    async def one(tenant: str, cost: int) -> None:
        async with queue.turn(tenant, 1, cost, None):
            order.append(tenant)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(one(*row)) for row in [("long", 100), ("short", 10)] * 20]
    await asyncio.gather(*tasks)
    assert order[:15].count("short") >= 11


@in_a_loop
async def test_a_turn_that_does_not_come_in_time_is_our_overload() -> None:
    gate = Gate(max_running=1, queue_seconds=0.02)
    async with gate.admit(Asking(), 1, 10):
        with pytest.raises(CauserieError) as caught:
            async with gate.admit(Asking(), 1, 10):
                raise AssertionError("it came in")
        assert (caught.value.code, gate.refused["deadline"]) == ("CAU-6006", 1)
        with pytest.raises(TimeoutError):  # the caller's own is not ours to rename
            async with gate.admit(Asking(seconds=5), 1, 10, "another"):
                raise TimeoutError
    assert gate.answers == 0


def test_stages_of_shedding() -> None:
    gate = Gate(max_tokens=100, max_memory=1000)
    other = Asking(tenant="other")
    assert gate.stage == 0
    with gate.hold(other, 1, 80):
        assert gate.stage == 1
        with pytest.raises(CauserieError, match="under way"), gate.hold(other, 1, 30):
            pass
    for memory, stage in ((799, 0), (800, 1), (900, 2), (1000, 3)):
        gate.memory = memory
        assert gate.stage == stage
    with pytest.raises(CauserieError, match="memory"), gate.hold(other, 1, 1):
        pass


def test_memory_held_before_serving_is_not_held_against_it() -> None:
    gate = Gate(max_memory=100 * 2**20)
    gate.measure()
    assert gate.resident > gate.memory == gate.stage == 0
    grown = mmap.mmap(-1, 120 * 2**20)  # fresh pages, whatever the C library keeps
    grown[::4096] = b"x" * len(grown[::4096])
    gate.measure()
    assert gate.memory > 100 * 2**20
    assert gate.stage == 3
    grown.close()
    gate.measure()
    assert gate.stage == 0


def test_nobody_holds_more_than_their_share_of_a_busy_server() -> None:
    gate = Gate(max_tokens=100)
    mine, yours = Asking(tenant="mine"), Asking(tenant="yours")
    with gate.hold(mine, 1, 45):
        with gate.hold(mine, 1, 45):  # alone, all of it is there
            pass
        with gate.hold(yours, 1, 10):
            with pytest.raises(CauserieError, match="share"), gate.hold(mine, 1, 20):
                pass
            with gate.hold(yours, 1, 20):
                pass
    assert gate.refused["fair_share"] == 1


def test_buckets_fill_evenly_and_a_clock_set_back_locks_nobody_out() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    holders = (("k", Limits(tokens_per_minute=60), 0),)
    taken = quotas.reserve(holders, 60)
    with pytest.raises(ApiError) as caught:
        quotas.reserve(holders, 30)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "rate_limit_exceeded", 30)
    clock.now -= 3600
    with pytest.raises(ApiError) as caught:
        quotas.reserve(holders, 30)
    assert caught.value.retry_after == 30
    clock.now += 30
    quotas.reserve(holders, 30).settle(30)
    taken.settle(0)  # the first one failed before a token was drawn
    assert quotas.remaining(holders)["x-ratelimit-remaining-tokens"] == "60"


@in_a_loop
async def test_who_waited_in_vain_has_used_nothing() -> None:
    """Neither tokens, nor a request, nor a place behind others: by its deadline, by leaving, by the server's end."""
    gate = Gate(max_running=1, queue_seconds=3600, quotas=Quotas(Clock()))
    limits = Limits(tokens_per_minute=100, requests_per_minute=3)
    order: list[str] = []

    async def ask(tenant: str, tokens: int, seconds: float | None = None) -> None:
        async with gate.admit(Asking(None, tenant, ((tenant, limits, 0),), seconds), 1, tokens, "engine"):
            order.append(tenant)

    async with gate.admit(Asking(tenant="first"), 1, 1, "engine"):
        late = await asyncio.gather(*(ask("a", 30, 0.0) for _ in range(3)), return_exceptions=True)
        assert [getattr(each, "code", None) for each in late] == ["CAU-6006"] * 3
        gone = [asyncio.create_task(ask("a", 30)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert gate.quotas.remaining((("a", limits, 0),))["x-ratelimit-remaining-tokens"] == "100"
        assert gate.quotas.remaining((("a", limits, 0),))["x-ratelimit-remaining-requests"] == "3"
        others = [asyncio.create_task(ask("b", 20)) for _ in range(3)]
        await asyncio.sleep(0)
        back = asyncio.create_task(ask("a", 20))
        await asyncio.sleep(0)
    await asyncio.gather(back, *others)
    assert order == ["b", "a", "b", "b"]
    assert gate.quotas.remaining((("a", limits, 0),))["x-ratelimit-remaining-requests"] == "2"


def test_a_request_above_the_quota_passes_once_and_is_paid_for() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    holders = (("k", Limits(tokens_per_minute=60), 0),)
    quotas.reserve(holders, 600).settle(120)
    with pytest.raises(ApiError) as caught:
        quotas.reserve(holders, 1)
    assert caught.value.retry_after == 61
    clock.now += 61
    quotas.reserve(holders, 1)


def test_all_holders_or_none() -> None:
    quotas = Quotas(Clock())
    key, project = ("k", Limits(tokens_per_minute=100), 0), ("p", Limits(tokens_per_day=50), 40)
    with pytest.raises(ApiError) as caught:
        quotas.reserve((key, project), 20)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.retry_after == DAY / 5
    quotas.reserve((key,), 100)
    smaller = ("k", Limits(tokens_per_minute=40), 0)
    with pytest.raises(ApiError):
        quotas.reserve((smaller,), 1)


def test_a_bucket_never_holds_more_than_its_capacity() -> None:
    bucket = Bucket(10, 60, 10, 0)
    bucket.give(5)
    assert bucket.level == 10
    assert bucket.wait_for(10, 1) == 0
