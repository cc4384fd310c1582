"""Event logs and turns: readers that come late, leave and come back; what is stored when things go wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.chat import sse
from causerie.chat.sse import EventLog
from tests.waiting import PATIENCE

from .conftest import Served
from .test_api import ask, events, new_conversation, tree


async def read(log: EventLog, after: int) -> list[str]:
    return [frame async for chunk in log.follow(after) for frame in chunk.decode().split("\n\n") if frame]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 12), after=st.integers(-3, 15), early=st.integers(0, 12))
def test_a_reader_gets_every_event_from_where_it_asks_once_and_in_order(count: int, after: int, early: int) -> None:
    async def scene() -> list[str]:
        log = EventLog()
        for number in range(min(early, count)):
            log.emit("delta", n=number)
        reading = asyncio.create_task(read(log, after))
        await asyncio.sleep(0)
        for number in range(min(early, count), count):
            log.emit("delta", n=number)
            await asyncio.sleep(0)
        log.close()
        return await asyncio.wait_for(reading, PATIENCE)

    found = asyncio.run(scene())
    assert [frame.split("\n")[0] for frame in found] == [f"id: {number}" for number in range(max(after, 0), count)]


def test_several_readers_see_the_same_and_text_survives_newlines() -> None:
    async def scene() -> list[list[str]]:
        log = EventLog()
        readings = [asyncio.create_task(read(log, 0)) for _ in range(3)]
        await asyncio.sleep(0)
        log.emit("delta", text="one\n\ndata: two\r\n🙂")
        log.close()
        return await asyncio.gather(*readings)

    first, *others = asyncio.run(scene())
    assert others == [first, first]
    (event,) = events(first[0] + "\n\n")
    assert event == ("delta", {"text": "one\n\ndata: two\r\n🙂"})


def test_an_idle_stream_is_kept_open_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.01)

    async def scene() -> bytes:
        log = EventLog()
        async for chunk in log.follow():
            return chunk
        return b""

    assert asyncio.run(scene()) == b": waiting\n\n"


def test_a_turn_is_replayed_from_any_event_after_its_end(served: Served) -> None:
    talk = new_conversation(served)
    whole = ask(served, talk, content="What colour?")
    turn = whole[0][1]["turn"]
    for after in (0, 1, len(whole) - 1, len(whole), 10_000):
        found = events(served.send("GET", f"/api/chat/{turn}?after={after}").text)
        assert found == whole[after:], after
    for wrong in ("-1", "x", "1.5", "9" * 10, "٣"):
        refused = served.send("GET", f"/api/chat/{turn}?after={wrong}")
        assert (refused.status_code, refused.json()["error"]["where"]) == (400, "after"), wrong


def test_a_reader_that_breaks_off_and_returns_has_the_whole_answer(served: Served) -> None:
    served.script.pause, served.script.answer = 0.01, lambda _prompt, _seed: "The sea is blue. " * 20
    talk = new_conversation(served)
    body = {"conversation": talk, "model": "demo", "content": "Tell"}
    seen, last = "", -1
    with (
        httpx.Client(base_url=served.url, timeout=20) as client,
        client.stream("POST", "/api/chat", json=body) as stream,
    ):
        for line in stream.iter_lines():
            last = int(line[4:]) if line.startswith("id: ") else last
            if line.startswith("data: "):
                data = json.loads(line[6:])
                turn = data.get("turn", None) or turn  # noqa: F821
                seen += data.get("text", "")
            elif line == "" and last >= 5:
                break
    for name, data in events(served.send("GET", f"/api/chat/{turn}?after={last + 1}").text):
        seen += data["text"] if name == "delta" else ""
    assert seen == "The sea is blue. " * 20 == tree(served, talk)[1]["content"]


def test_one_turn_at_a_time_and_a_deleted_conversation_stops_its_own(served: Served) -> None:
    served.script.pause, served.script.answer = 0.05, lambda _prompt, _seed: "The sea is blue. " * 60
    talk = new_conversation(served)
    body: dict[str, Any] = {"conversation": talk, "model": "demo", "content": "Tell"}
    with (
        httpx.Client(base_url=served.url, timeout=20) as client,
        client.stream("POST", "/api/chat", json=body) as stream,
    ):
        next(stream.iter_text())
        again = served.send("POST", "/api/chat", body)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "CAU-6105")
        assert served.get(f"/api/conversations/{talk}")["turn"]["question"]
        assert served.send("DELETE", f"/api/conversations/{talk}").status_code == 200
    assert served.script.cancelled == 1
    assert served.send("GET", f"/api/conversations/{talk}").status_code == 404
    assert len(served.post(f"/api/conversations/{talk}/restore", {})["id"]) > 0
    assert [message["role"] for message in tree(served, talk)] == ["user", "assistant"]


def test_what_a_cut_answer_may_and_may_not_do(served: Served) -> None:
    talk = new_conversation(served)
    ask(served, talk, content="Tell", params={"max_tokens": 2})
    ask(served, talk, content="More", parent=tree(served, talk)[1]["id"])
    _, cut, question, whole = tree(served, talk)
    for message in (question["id"], whole["id"], "msg_nothing"):
        body = {"conversation": talk, "model": "demo", "continues": message}
        assert served.send("POST", "/api/chat", body).status_code in (400, 404), message
    body = {"conversation": talk, "model": "demo", "parent": whole["id"]}
    assert served.send("POST", "/api/chat", body).status_code == 404, "only questions are answered again"
    ask(served, talk, continues=cut["id"])
    assert tree(served, talk)[-1]["content"].startswith(cut["content"])
