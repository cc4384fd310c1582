"""The fair queue against its theorem, and its slots under any order of leaving."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

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
