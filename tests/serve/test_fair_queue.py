"""The fair queue against its theorem, and its slots under any order of leaving."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from causerie.serve.fair import FairQueue

costs = st.lists(st.integers(1, 50), min_size=1, max_size=15)


async def drain(work: dict[str, list[int]]) -> list[tuple[str, int]]:
    """The order in which turns come at one slot when everything is asked at once; what ran, with its cost."""
    queue, order = FairQueue(1), list[tuple[str, int]]()
    gate = asyncio.Event()

    async def hold() -> None:
        async with queue.turn("first", 1, 1, None):
            await gate.wait()

    async def one(tenant: str, cost: int) -> None:
        async with queue.turn(tenant, 1, cost, None):
            order.append((tenant, cost))

    first = asyncio.create_task(hold())
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(one(tenant, cost)) for tenant, own in work.items() for cost in own]
    await asyncio.sleep(0)
    assert queue.waiting == len(tasks)
    gate.set()
    await asyncio.gather(first, *tasks)
    assert (queue.free, queue.waiting) == (1, 0)
    return order


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from("abcd"), costs, min_size=2))
def test_while_two_wait_neither_gets_far_ahead(work: dict[str, list[int]]) -> None:
    """Goyal, Vin, Cheng 1996, theorem 1: their work differs by no more than the dearest request of each together."""
    order = asyncio.run(drain(work))
    done: dict[str, int] = defaultdict(int)
    left = {tenant: len(own) for tenant, own in work.items()}
    for tenant, cost in order:
        done[tenant] += cost
        left[tenant] -= 1
        waiting = [name for name in work if left[name]]
        for one in waiting:
            for other in waiting:
                assert abs(done[one] - done[other]) <= max(work[one]) + max(work[other])


@given(st.dictionaries(st.sampled_from("abc"), costs, min_size=1))
def test_everybody_is_served_once_and_each_in_their_own_order(work: dict[str, list[int]]) -> None:
    order = asyncio.run(drain(work))
    for tenant, own in work.items():
        assert [cost for name, cost in order if name == tenant] == own


def test_a_crowd_does_not_delay_a_newcomer() -> None:
    """A hundred of one tenant wait; another's one request comes after the turn under way and one more at most."""
    order = asyncio.run(drain({"crowd": [10] * 100, "newcomer": [10]}))
    assert [tenant for tenant, _ in order].index("newcomer") <= 1


plans = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(1, 4), st.integers(1, 30), st.sampled_from(["stay", "leave", "fail"])
    ),
    min_size=1,
    max_size=20,
)


@given(plans, st.integers(1, 3))
def test_slots_come_back_whoever_leaves(plan: list[tuple[str, int, int, str]], slots: int) -> None:
    """Waiting or with a turn: ended, cancelled, failed; more slots than there are mean all of them."""

    async def play() -> None:
        queue, held = FairQueue(slots), 0

        async def one(tenant: str, wanted: int, cost: int, how: str) -> None:
            nonlocal held
            async with queue.turn(tenant, wanted, cost, None):
                held += min(wanted, slots)
                assert held <= slots
                try:
                    await asyncio.sleep(0)
                    if how == "fail":
                        raise LookupError
                finally:
                    held -= min(wanted, slots)

        tasks = []
        for each in plan:
            tasks.append(asyncio.create_task(one(*each)))
            await asyncio.sleep(0)
            if each[3] == "leave":
                tasks[-1].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert (queue.free, queue.waiting, held) == (slots, 0, 0)

    asyncio.run(play())


def test_time_runs_out_for_who_waits_and_not_for_who_has_a_turn() -> None:
    async def play() -> None:
        queue = FairQueue(1)
        async with queue.turn("a", 1, 1, 0.01):
            await asyncio.sleep(0.05)
            with pytest.raises(TimeoutError):
                async with queue.turn("b", 1, 1, 0.01):
                    pytest.fail("there was no turn to have")
        async with queue.turn("b", 1, 1, 0.01):
            assert queue.free == 0
        assert queue.free == 1

    asyncio.run(play())


def test_giving_up_ends_all_waiting_and_no_turn() -> None:
    async def play() -> list[bool]:
        queue = FairQueue(1)

        async def wait() -> bool:
            try:
                async with queue.turn("b", 1, 1, None):
                    return True
            except TimeoutError:
                return False

        async with queue.turn("a", 1, 1, None):
            tasks = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            queue.give_up()
            found = await asyncio.gather(*tasks)
            assert queue.free == 0
        assert await wait()
        return found

    assert asyncio.run(play()) == [False] * 3


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abc"), st.integers(1, 50)),
        st.tuples(st.sampled_from(["leave", "end"]), st.integers(0, 50), st.just(0)),
    ),
    max_size=60,
)


async def served(plan: Sequence[tuple[str, str | int, int]], without: frozenset[int]) -> tuple[list[int], set[int]]:
    """Who of a plan's askers (by number) gets the one turn, in order, and who leaves the line; some may stay away."""
    queue, order, numbers = FairQueue(1), list[int](), itertools.count()
    tasks, running, gone = dict[int, asyncio.Task[None]](), dict[int, asyncio.Event](), set[int]()

    async def ask(number: int, tenant: str, cost: int) -> None:
        async with queue.turn(tenant, 1, cost, None):
            order.append(number)
            running[number] = asyncio.Event()
            await running[number].wait()
            del running[number]

    for what, who, cost in plan:
        if what == "ask":
            number = next(numbers)
            if number not in without:
                tasks[number] = asyncio.create_task(ask(number, str(who), cost))
        elif what == "end" and running:
            next(iter(running.values())).set()
        elif what == "leave" and not without and (waiting := sorted(tasks.keys() - gone - set(order))):
            leaver = waiting[int(who) % len(waiting)]
            gone.add(leaver)
            tasks[leaver].cancel()
        for _ in range(4):
            await asyncio.sleep(0)
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    return order, gone


@settings(max_examples=150)
@given(steps)
def test_who_leaves_the_line_leaves_no_trace(plan: list[tuple[str, str | int, int]]) -> None:
    """All others get their turns in the order in which they would without them."""
    order, gone = asyncio.run(served(plan, frozenset()))
    alone, _ = asyncio.run(served(plan, frozenset(gone) | {-1}))
    assert alone == order


class FairMachine(RuleBasedStateMachine):
    """The theorem, over every stretch of time in which two tenants wait, with leaving, deadlines and failures."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue = FairQueue(1)
        self.waiting: dict[asyncio.Task[None], str] = {}
        self.running: dict[asyncio.Task[None], asyncio.Future[None]] = {}
        self.done: list[tuple[str, int]] = []
        self.dearest = Counter[str]()
        self.since: int | None = None

    def _turn(self) -> None:
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(tenant=st.sampled_from("ab"), cost=st.integers(1, 50), late=st.booleans(), times=st.integers(1, 6))
    def ask(self, tenant: str, cost: int, late: bool, times: int) -> None:
        """Somebody asks some times, perhaps with a deadline that is over at once."""
        self.dearest[tenant] = max(self.dearest[tenant], cost)
        for _ in range(times):
            task = self.loop.create_task(self._hold(tenant, cost, 0.0 if late else None))
            self.waiting[task] = tenant
            self._turn()
            if late and task in self.waiting:
                with contextlib.suppress(TimeoutError):
                    self.loop.run_until_complete(task)
                del self.waiting[task]

    async def _hold(self, tenant: str, cost: int, seconds: float | None) -> None:
        future: asyncio.Future[None] = self.loop.create_future()
        async with self.queue.turn(tenant, 1, cost, seconds):
            me = asyncio.current_task()
            assert me is not None
            del self.waiting[me]
            self.running[me] = future
            self.done.append((tenant, cost))
            await future

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """One who waits leaves."""
        if self.waiting:
            task = data.draw(st.sampled_from(list(self.waiting)))
            del self.waiting[task]
            task.cancel()
            self._turn()

    @rule(fails=st.booleans(), times=st.integers(1, 6))
    def end(self, fails: bool, times: int) -> None:
        """The turn under way ends, and some after it."""
        for _ in range(times):
            for task, future in list(self.running.items()):
                future.set_exception(LookupError()) if fails else future.set_result(None)
                del self.running[task]
                self._turn()
                assert task.done()
                assert isinstance(task.exception(), LookupError) == fails
            self.nobody_is_far_ahead_while_two_wait()

    @invariant()
    def nobody_is_far_ahead_while_two_wait(self) -> None:
        """Since both wait, the work of one is at most that of the other and the dearest request of each."""
        assert len(self.running) == 1 - self.queue.free
        assert not self.waiting or self.running
        if len(set(self.waiting.values())) < 2:
            self.since = None
            return
        self.since = len(self.done) if self.since is None else self.since
        work = Counter[str]()
        for tenant, cost in self.done[self.since :]:
            work[tenant] += cost
        assert abs(work["a"] - work["b"]) <= self.dearest["a"] + self.dearest["b"]

    def teardown(self) -> None:
        """All leave."""
        for task in (*self.waiting, *self.running):
            task.cancel()
        self._turn()
        assert (self.queue.free, self.queue.waiting) == (1, 0)
        self.loop.close()


FairMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestFairMachine = FairMachine.TestCase


def test_asking_in_vain_does_not_put_anybody_behind() -> None:
    """Six deadlines missed: the next one of that tenant is as near as anybody's."""
    machine = FairMachine()
    machine.ask("b", 1, False, 1)
    machine.ask("a", 50, True, 6)
    machine.ask("a", 50, False, 1)
    machine.ask("b", 50, False, 6)
    machine.nobody_is_far_ahead_while_two_wait()
    machine.end(False, 3)
    assert [tenant for tenant, _ in machine.done][:3].count("a") == 1
    machine.teardown()
