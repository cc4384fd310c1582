"""Named work that outlives its request: once at a time, ended by name, never begun while the server ends."""

from __future__ import annotations

import asyncio
import logging

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from causerie.serve.work import Workers


async def idle() -> None:
    """Let callbacks run."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_name_runs_once_at_a_time() -> None:
    async def play() -> list[str]:
        workers, done = Workers(), list[str]()
        gate = asyncio.Event()

        async def work(word: str) -> None:
            await gate.wait()
            done.append(word)

        workers.start("x", work("first"))
        workers.start("x", work("second"))  # not begun, and not left unawaited either
        workers.start("y", work("other"))
        assert workers.running("x")
        gate.set()
        await workers.wait("x")
        await workers.wait("y")
        await workers.wait("nothing of this name")
        await idle()
        assert not workers.running("x")
        workers.start("x", work("again"))
        await workers.wait("x")
        return done

    assert asyncio.run(play()) == ["first", "other", "again"]


def test_cancelling_waits_for_what_is_still_to_be_put_away() -> None:
    async def play() -> list[str]:
        workers, told = Workers(), list[str]()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                told.append("put away")

        workers.start("x", work())
        await asyncio.sleep(0)
        await workers.cancel("x")
        told.append("cancelled")
        assert not workers.running("x")
        await workers.cancel("x")
        return told

    assert asyncio.run(play()) == ["put away", "cancelled"]


def test_a_closing_server_ends_all_and_begins_nothing() -> None:
    async def play() -> list[str]:
        workers, told = Workers(), list[str]()

        async def work(word: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                told.append(word)

        for word in "abc":
            workers.start(word, work(word))
        await asyncio.sleep(0)
        await workers.close()
        workers.start("d", work("d"))
        assert not workers.running("d")
        return told

    assert asyncio.run(play()) == ["a", "b", "c"]


def test_what_fails_is_logged_and_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        workers = Workers()

        async def fail() -> None:
            raise LookupError("no luck")

        workers.start("x", fail())
        await workers.wait("x")
        await idle()
        assert not workers.running("x")

    with caplog.at_level(logging.ERROR, "causerie.serve"):
        asyncio.run(play())
    assert "x failed" in caplog.text
    assert "no luck" in caplog.text


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["start", "cancel", "finish"]), st.sampled_from("ab")), max_size=20))
def test_any_order_leaves_no_two_of_a_name(steps: list[tuple[str, str]]) -> None:
    """The model is a set of names."""

    async def play() -> None:
        workers, gates, live = Workers(), dict[str, asyncio.Event](), dict[str, int]()

        async def work(name: str, gate: asyncio.Event) -> None:
            live[name] = live.get(name, 0) + 1
            try:
                await gate.wait()
            finally:
                live[name] -= 1

        known: set[str] = set()
        for step, name in steps:
            if step == "start":
                if name not in known:
                    gates[name] = asyncio.Event()
                workers.start(name, work(name, gates[name]))
                known.add(name)
            elif step == "cancel":
                await workers.cancel(name)
                known.discard(name)
            elif name in known:
                gates[name].set()
                await workers.wait(name)
                known.discard(name)
            await idle()
            assert {each for each in "ab" if workers.running(each)} == known
            assert {each for each, count in live.items() if count} == known
            assert max(live.values(), default=0) <= 1
        await workers.close()

    asyncio.run(play())
