"""How a server ends: it is not ready, then takes nothing new, finishes what is in hand, and leaves."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from causerie.serve import EnginePool, create_app
from causerie.serve.events import Drain
from tests.serve.conftest import Running, Script, Start, serving
from tests.serve.test_faults import CHAT, QUESTION, begin
from tests.waiting import PATIENCE, wait_for


@contextmanager
def streaming(running: Running, most: int = 40) -> Iterator[Iterator[str]]:
    """The lines of an answer under way."""
    body = QUESTION | {"stream": True, "max_tokens": most}
    with httpx.stream("POST", running.url + CHAT, json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        yield lines


def health(running: Running) -> tuple[int, str]:
    """Status and word, over a connection of its own."""
    answer = httpx.get(f"{running.url}/health")
    return answer.status_code, answer.json()["status"]


def refuses_connections(running: Running) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", running.server.port)) != 0


def test_while_it_drains_it_says_so_and_refuses_in_words(start: Start, app: Starlette, script: Script) -> None:
    """New connections are still taken, so that a balancer and a client learn why; the open stream ends as it would."""
    script.endless, script.delay, script.max_seq_len = True, 0.04, 10**6
    running = start(app, grace=120)
    with streaming(running, 90_000) as lines:
        assert health(running) == (200, "ok")
        running.server.stop()
        wait_for(lambda: health(running) == (503, "stopping"))
        refused = httpx.post(running.url + CHAT, json=QUESTION)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{running.url}/health/live").status_code == 200
        script.endless = False
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"stop"' in rest[-2]
    running.stop()
    assert refuses_connections(running)


def test_a_notice_comes_before(start: Start, app: Starlette) -> None:
    """Readiness is false first, and work is still taken: a balancer needs a while to look."""
    running = start(app, notice=5)
    running.server.stop()
    wait_for(lambda: health(running) == (503, "stopping"))
    assert httpx.post(running.url + CHAT, json=QUESTION).status_code == 200
    wait_for(lambda: not running.thread.is_alive())
    assert refuses_connections(running)


def test_a_plain_answer_in_hand_is_given(start: Start, app: Starlette, script: Script) -> None:
    script.held_after = 0
    running = start(app, grace=120)
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(httpx.post, running.url + CHAT, json=QUESTION | {"max_tokens": 6}, timeout=60)
        wait_for(lambda: script.live == 1)
        running.server.stop()
        wait_for(lambda: health(running) == (503, "stopping"))
        script.held_after = None
        assert answer.result(60).json()["usage"]["completion_tokens"] == 6
    running.stop()


def test_with_nothing_in_hand_it_ends_at_once(start: Start, app: Starlette) -> None:
    """Idle connections, and being asked twice, hold nothing up; the grace is only for answers."""
    running = start(app, grace=10 * PATIENCE)
    with httpx.Client(base_url=running.url) as idle:
        assert idle.get("/health").status_code == 200
        running.server.stop()
        running.server.stop()
        wait_for(lambda: not running.thread.is_alive())


def test_stopped_before_it_began_it_never_begins(pool: EnginePool, folder: Path) -> None:
    from causerie.serve import Server

    server = Server(create_app(pool, lifespans=[serving(pool, folder)]), port=0)
    server.stop()
    server.run()
    assert pool.closed


def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    """The first would let an endless answer go on for ten seconds and then end it in words; the second breaks it off."""
    process, url, headers = begin(tmp_path)
    body = QUESTION | {"stream": True, "max_tokens": 90_000}
    rest: list[str] = []
    with httpx.stream("POST", url + CHAT, json=body, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{url}/health").status_code == 503)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        with suppress(httpx.TransportError):
            rest.extend(lines)
    assert process.wait(60) == 0
    assert not any("server_stopping" in line for line in rest)


def test_streams_under_way_are_counted_and_cut() -> None:
    async def work() -> list[bool]:
        drain = Drain()
        assert (drain.leaving, drain.draining, drain.streams) == (False, False, 0)
        open_, done = asyncio.create_task(asyncio.sleep(60)), asyncio.create_task(asyncio.sleep(0))
        drain.add(open_)
        drain.add(done)
        await done
        await asyncio.sleep(0)
        assert drain.streams == 1
        drain.announce()
        assert (drain.leaving, drain.draining) == (True, False)
        drain.begin()
        assert drain.draining
        drain.cut()
        await asyncio.gather(open_, return_exceptions=True)
        return [open_.cancelled(), drain.streams == 0]

    assert asyncio.run(work()) == [True, True]


@pytest.mark.parametrize("grace", [0, 60])
def test_what_outlasts_the_grace_ends_with_an_error(grace: int, start: Start, app: Starlette, script: Script) -> None:
    script.delay = 0.02
    script.endless = grace == 0
    running = start(app, grace=grace)
    with streaming(running) as lines:
        running.server.stop()
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert ("server_stopping" in rest[-2]) == (grace == 0)
    running.stop()
    assert script.live == 0


@pytest.mark.parametrize("field", ["grace", "notice"])
def test_seconds_below_zero_are_refused(field: str, tmp_path: Path) -> None:
    from causerie.chat import ServeConfig, serve_page
    from causerie.core import CauserieError

    with pytest.raises(CauserieError) as caught:
        serve_page(ServeConfig(**{field: -1}), tmp_path)
    assert (caught.value.code, caught.value.where) == ("CAU-6101", field)
