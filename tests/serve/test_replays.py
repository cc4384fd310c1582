"""Streams that are read again: whoever reads, from wherever, gets each event once and in order, or is told that it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from causerie.serve import replay as module
from causerie.serve.errors import ApiError
from causerie.serve.replay import KEPT, Replay, Replays, resume_point

events = st.lists(st.binary(min_size=1, max_size=12), max_size=30)


async def read(replay: Replay, after: int = -1) -> list[bytes]:
    """All that a reader gets."""
    return [event async for event in replay.follow(after)]


@given(events, st.integers(-1, 29))
def test_a_late_reader_gets_the_rest(said: list[bytes], after: int) -> None:
    replay = Replay("me")
    for event in said:
        replay.put(event)
    replay.end()
    assert asyncio.run(read(replay, after)) == said[after + 1 :]
    assert replay.next_number == len(said)


@given(events, st.lists(st.tuples(st.integers(0, 29), st.integers(-1, 12)), min_size=1, max_size=4))
def test_readers_that_come_and_go_disturb_nobody(said: list[bytes], readers: list[tuple[int, int]]) -> None:
    """Each begins after so many events were put, and reads on while more are put."""

    async def play() -> list[list[bytes]]:
        replay = Replay("me")
        tasks = []
        for number, event in enumerate(said):
            tasks += [asyncio.create_task(read(replay, after)) for begin, after in readers if begin == number]
            replay.put(event)
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(read(replay, after)) for begin, after in readers if begin >= len(said)]
        await asyncio.sleep(0)
        replay.end()
        return list(await asyncio.gather(*tasks))

    order = sorted(readers, key=lambda reader: min(reader[0], len(said)))
    assert asyncio.run(play()) == [said[after + 1 :] for _, after in order]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=30), room=st.integers(1, 40))
def test_a_full_buffer_forgets_the_oldest_and_says_so(
    said: list[bytes], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", room)
    replay = Replay("me")
    for event in said:
        replay.put(event)
    replay.end()
    kept = len(said)
    while kept > 1 and sum(map(len, said[-kept:])) > room:
        kept -= 1
    first = len(said) - kept
    assert asyncio.run(read(replay, first - 1)) == said[first:]
    if first:
        with pytest.raises(ApiError) as caught:
            asyncio.run(read(replay, first - 2))
        assert (caught.value.status, caught.value.code) == (410, "events_gone")


def test_a_reader_that_is_overtaken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 2)

    async def play() -> None:
        replay = Replay("me")
        replay.put(b"a")
        reader = replay.follow()
        assert await anext(reader) == b"a"
        for _ in range(5):
            replay.put(b"bb")
        with pytest.raises(ApiError) as caught:
            await anext(reader)
        assert caught.value.status == 410

    asyncio.run(play())


async def words(count: int, fail: bool = False) -> AsyncIterator[bytes]:
    """Some events, and perhaps a failure after them."""
    for number in range(count):
        await asyncio.sleep(0)
        yield b"%d" % number
    if fail:
        raise LookupError


def test_work_goes_on_without_readers_and_ends_for_its_owner_only() -> None:
    async def play() -> None:
        replays = Replays()
        begun = replays.start("x", "me", words(4))
        assert replays.find("x", "you") is None
        assert replays.find("y", "me") is None
        assert begun.task is not None
        await begun.task
        assert begun.ended
        assert replays.find("x", "me") is begun
        assert await read(begun, 1) == [b"2", b"3"]
        replays.forget("x")
        replays.forget("x")
        assert replays.find("x", "me") is None
        failing = replays.start("z", "me", words(2, fail=True))
        assert await read(failing) == [b"0", b"1"]  # its readers are not left waiting
        with pytest.raises(LookupError):
            await failing.task  # type: ignore[misc]

    asyncio.run(play())


def test_forgetting_and_closing_stop_the_work() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b"x"

    async def play() -> list[bool]:
        replays = Replays()
        one, two = replays.start("a", "me", endless()), replays.start("b", "me", endless())
        await asyncio.sleep(0)
        replays.forget("a")
        await replays.close()
        await asyncio.sleep(0)
        assert one.task is not None
        assert two.task is not None
        await asyncio.gather(one.task, two.task, return_exceptions=True)
        return [one.task.cancelled(), two.task.cancelled(), one.ended, two.ended]

    assert asyncio.run(play()) == [True] * 4


def test_old_streams_make_room_but_never_one_under_way() -> None:
    replays = Replays()
    open_ = replays.open("open", "me")
    for number in range(KEPT + 5):
        replays.open(f"{number}", "me").end()
    assert replays.find("open", "me") is open_
    assert replays.find("0", "me") is None
    assert replays.find(f"{KEPT + 4}", "me") is not None
    assert len(replays._kept) <= KEPT + 1


@given(st.none() | st.text(max_size=12), st.none() | st.text(max_size=12))
def test_any_place_to_go_on_from_is_a_number_or_a_refusal(query: str | None, header: str | None) -> None:
    text = query if query is not None else header
    good = text is None or (text.isascii() and text.isdigit() and len(text) < 10)
    if good:
        assert resume_point(query, header) == (-1 if text is None else int(text))
        return
    with pytest.raises(ApiError) as caught:
        resume_point(query, header)
    assert caught.value.param == "starting_after"
