"""Faults and abuse, on loopback and bounded; `bench/serve_faults.py` runs the long ones at full size."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, func, select

from causerie.serve import EnginePool, Gate, create_app, limits
from causerie.serve.gate import resident_bytes
from causerie.store import Store, objects, open_store, usage
from causerie.store import store as store_module
from causerie.text import Tokenizer
from tests.serve.conftest import Running, Script, ScriptedEngine, Start, serving
from tests.waiting import PATIENCE, wait_for

CHAT = "/v1/chat/completions"
QUESTION: dict[str, Any] = {"model": "petit", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4}
TALK = "/v1/conversations"


def head(server: Running, body: bytes = b"", length: int | None = None, extra: bytes = b"") -> bytes:
    """The bytes of a chat request."""
    size = len(body) if length is None else length
    start = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{server.server.port}\r\nContent-Length: {size}\r\n".encode()
    return start + extra + b"\r\n" + body


# S1, S2: overload


def test_overload_is_refused_at_once_and_the_accepted_are_answered(
    start: Start, script: Script, tokenizer: Tokenizer, folder: Path
) -> None:
    """S1: twenty times more than it takes."""
    gate = Gate(max_answers=6, max_running=3)
    pool = EnginePool(lambda folder: ScriptedEngine(folder, script, tokenizer), gate=gate)
    running = start(create_app(pool, lifespans=[serving(pool, folder)]))
    script.delay = 0.1
    before = resident_bytes()
    with httpx.Client(base_url=running.url, timeout=60) as http, ThreadPoolExecutor(40) as crowd:
        answers = list(crowd.map(lambda _: http.post(CHAT, json=QUESTION), range(120)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "CAU-6006"
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert answer.json()["usage"]["completion_tokens"] == 4
    assert script.peak <= 3
    assert resident_bytes() - before < 60 * 2**20
    assert (gate.answers, gate.tokens, gate.waiting) == (0, 0, 0)


def test_a_queued_client_that_leaves_takes_nobody_along(
    start: Start, script: Script, tokenizer: Tokenizer, folder: Path
) -> None:
    """S2: it waits for its turn, plain or streaming."""
    gate = Gate(max_running=1)
    pool = EnginePool(lambda folder: ScriptedEngine(folder, script, tokenizer), gate=gate)
    running = start(create_app(pool, lifespans=[serving(pool, folder)]))
    script.delay, script.endless, script.max_seq_len = 0.05, True, 10**6
    with httpx.Client(base_url=running.url, timeout=60) as http:
        with http.stream("POST", CHAT, json=QUESTION | {"stream": True, "max_tokens": 90_000}) as stays:
            lines = stays.iter_lines()
            next(lines)
            for stream in (True, False):
                with socket.create_connection(("127.0.0.1", running.server.port)) as leaves:
                    leaves.sendall(head(running, json.dumps(QUESTION | {"stream": stream}).encode()))
                    wait_for(lambda: gate.waiting == 1)
                wait_for(lambda: gate.waiting == 0)
            assert len(script.asked) == 1
            script.endless = False
            rest = [line for line in lines if line.startswith("data: {")]
        assert json.loads(rest[-1][6:])["choices"][0]["finish_reason"]
        assert http.post(CHAT, json=QUESTION).status_code == 200
    assert (gate.answers, gate.tokens) == (0, 0)


# S3, S4, S5: slow, half and lying clients


def test_slow_readers_are_given_up(server: Running, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3: they ask for endless answers and read nothing."""
    from causerie.serve import events

    monkeypatch.setattr(events, "SEND_SECONDS", 0.2)
    script.endless, script.max_seq_len = True, 100_000
    body = json.dumps(QUESTION | {"stream": True, "max_tokens": 90_000, "logprobs": True, "top_logprobs": 20}).encode()
    readers = []
    for _ in range(6):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", server.server.port))
        reader.sendall(head(server, body))
        readers.append(reader)
    wait_for(lambda: script.peak >= 6)
    wait_for(lambda: script.live == 0)
    for reader in readers:
        reader.close()
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_half_sent_requests_are_closed(server: Running, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """S4: nothing, half a head, half a body, a drop at a time; who has sent a whole request may take long."""
    for name, seconds in (("HEADER_SECONDS", 1.5), ("BODY_SECONDS", 1.5), ("SWEEP_SECONDS", 0.05)):
        monkeypatch.setattr(limits, name, seconds)
    time.sleep(1.1)  # the sweep under way was begun with the longer pause
    script.delay = 1.0
    parts = [b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: x\r\n", head(server, b"{", 50)]
    sockets = [socket.create_connection(("127.0.0.1", server.server.port)) for _ in range(20) for _ in parts]
    for place, raw in enumerate(sockets):
        raw.sendall(parts[place % len(parts)])
    drip = socket.create_connection(("127.0.0.1", server.server.port))
    slow = threading.Thread(target=lambda: _drip(drip), daemon=True)
    slow.start()
    whole = httpx.post(server.url + CHAT, json=QUESTION | {"max_tokens": 2}, timeout=60)
    assert whole.status_code == 200  # 2 seconds: longer than any deadline
    for raw in [*sockets, drip]:
        raw.settimeout(60)
        with suppress(ConnectionError):
            assert raw.recv(1000)[:12] in (b"", b"HTTP/1.1 400")
        raw.close()
    slow.join(60)
    gate = server.server._app.state.office.pool.gate
    assert gate.refused["half_sent"] >= len(sockets)
    assert gate.answers == 0


def _drip(raw: socket.socket) -> None:
    """A head, a byte at a time."""
    try:
        for byte in b"GET /health HTTP/1.1\r\nX: " + b"a" * 1000:
            raw.sendall(bytes([byte]))
            time.sleep(0.02)
    except OSError:
        return


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nF"
        + b"F" * 40
        + b"\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nX: " + b"a" * 2**20 + b"\r\n\r\n",
        b"GET /" + b"a" * 2**20,
        b"\0" * 5000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    ],
)
def test_lying_requests_are_refused(raw: bytes, server: Running) -> None:
    """S5."""
    with socket.create_connection(("127.0.0.1", server.server.port)) as connection:
        connection.settimeout(60)
        answer = b""
        try:
            connection.sendall(raw)
            answer = connection.recv(64)
        except ConnectionError:
            pass
    assert answer[:10] in (b"", b"HTTP/1.1 4"), answer
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_body_of_100_mb_is_refused_early(server: Running) -> None:
    """S5: with a length, and in chunks without one."""
    before = resident_bytes()

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 2**20

    for content in (pieces(), b" " * (8 * 2**20)):
        try:
            answer = httpx.post(server.url + CHAT, content=content, timeout=60)
            assert answer.status_code == 413
        except httpx.TransportError:  # refused and closed while we were still sending
            pass
    assert resident_bytes() - before < 80 * 2**20


def test_thirty_digits_are_refused_wherever_a_number_goes(server: Running) -> None:
    """S7."""
    for name in ("max_tokens", "n", "seed", "top_logprobs", "temperature", "top_p", "frequency_penalty"):
        for value in ("9" * 30, "-" + "9" * 30, "1e400", "NaN", "-Infinity", "9" * 5000):
            body = json.dumps(QUESTION | {name: 0}).replace(f'"{name}": 0', f'"{name}": {value}')
            answer = httpx.post(server.url + CHAT, content=body.encode(), timeout=60)
            assert answer.status_code == 400, (name, value[:40], answer.text)
            assert answer.json()["error"]["type"] == "invalid_request_error"


# S9: the engine


def test_an_engine_that_fails_in_a_stream_ends_it_with_an_error(server: Running, script: Script) -> None:
    """S9, as the server sees it; the engine's own restart is tested with the engine."""
    script.fail_after = 2
    with httpx.stream("POST", server.url + CHAT, json=QUESTION | {"stream": True}, timeout=20) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert "error" in json.loads(lines[-2][6:])
    assert lines[-1] == "data: [DONE]"
    assert httpx.post(server.url + CHAT, json=QUESTION, timeout=20).status_code == 502


def test_liveness_answers_while_everything_is_busy(server: Running, script: Script) -> None:
    """Every turn taken, and as many waiting: the process still says at once that it lives."""
    script.endless, script.delay, script.max_seq_len = True, 0.001, 10**6
    stop = threading.Event()

    def occupy(_: int) -> None:
        body = QUESTION | {"stream": True, "max_tokens": 10**5}
        with httpx.stream("POST", server.url + CHAT, json=body, timeout=60) as answer:
            for _line in answer.iter_lines():
                if stop.is_set():
                    return

    with ThreadPoolExecutor(8) as crowd:
        work = [crowd.submit(occupy, number) for number in range(8)]
        wait_for(lambda: script.live >= 5)
        answers = [httpx.get(f"{server.url}/health/live", timeout=60) for _ in range(5)]
        stop.set()
        for each in work:
            each.result(120)
    assert [answer.json()["status"] for answer in answers] == ["alive"] * 5


# S11: the database


@pytest.fixture
def frail(
    start: Start, script: Script, tokenizer: Tokenizer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Running, Store, Path]]:
    """A server with a database of its own that gives up soon when it is locked."""
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.2)
    pool = EnginePool(lambda folder: ScriptedEngine(folder, script, tokenizer))
    with open_store(tmp_path) as store:
        running = start(create_app(pool, store=store, workspace=tmp_path, lifespans=[serving(pool, folder)]))
        yield running, store, tmp_path / "causerie.db"
        running.stop()


@pytest.mark.parametrize("fault", ["locked", "full", "read-only"])
def test_answers_go_on_without_the_database(fault: str, frail: tuple[Running, Store, Path]) -> None:
    running, store, file = frail
    with httpx.Client(base_url=running.url, timeout=30) as http, closing(sqlite3.connect(file)) as other:
        assert http.post(TALK, json={}).status_code == 200
        before = store.read(select(func.count()).select_from(objects))[0][0]
        pragma = {"full": "max_page_count=1", "read-only": "query_only=ON"}.get(fault)

        def spoil(connection: Any, _record: Any) -> None:
            connection.execute(f"PRAGMA {pragma}")

        if pragma:
            event.listen(store.engine, "connect", spoil)
            store.engine.dispose()
        else:
            other.execute("BEGIN IMMEDIATE")
        filled = {"items": [{"type": "message", "role": "user", "content": "x" * 200_000}]}
        wait_for(lambda: http.post(TALK, json=filled).status_code == 503)
        refused = http.post(TALK, json=filled)
        assert refused.status_code == 503, refused.text
        assert refused.json()["error"]["code"] in ("CAU-1102", "CAU-1103", "CAU-1104")
        assert int(refused.headers["retry-after"]) >= 1
        assert http.post(CHAT, json=QUESTION).status_code == 200
        with http.stream("POST", CHAT, json=QUESTION | {"stream": True}) as answer:
            assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"
        wait_for(lambda: http.get("/health").json()["status"] == "degraded")
        health = http.get("/health")
        assert (health.status_code, "database" in health.json()) == (200, True)
        assert "causerie_database_failing 1" in http.get("/metrics").text
        if pragma:
            event.remove(store.engine, "connect", spoil)
            store.engine.dispose()
        else:
            other.rollback()
        wait_for(lambda: http.post(TALK, json={}).status_code == 200)
        wait_for(lambda: http.get("/health").json()["status"] == "ok")
        wait_for(lambda: len(store.read(select(usage.c.request_id))) == 2)
        assert store.read(select(func.count()).select_from(objects))[0][0] > before


# S10 and kill -9: the process


def begin(home: Path, delay: float = 0.01, answers: int = 64) -> tuple[subprocess.Popen[str], str, dict[str, str]]:
    """A server in a process of its own, its URL, and the headers of its key."""
    command = [sys.executable, "-m", "tests.serve.faulty_server", str(home), str(delay), str(answers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    url, key = json.loads(line)
    return process, url, {"api-key": key}


def test_sigterm_with_fifty_open_streams(tmp_path: Path) -> None:
    """S10: each ends with an error event and [DONE], every token is metered, the process leaves with 0."""
    process, url, headers = begin(tmp_path)
    streams, lasts = 50, []
    most = httpx.Limits(max_connections=60)
    with (
        httpx.Client(base_url=url, headers=headers, timeout=60, limits=most) as http,
        ThreadPoolExecutor(streams) as crowd,
    ):
        # eight have a turn; the others wait for one and are refused when the server stops
        body = QUESTION | {"stream": True, "max_tokens": 90_000}

        def ask(_: int) -> tuple[int, list[str]]:
            with http.stream("POST", CHAT, json=body) as answer:
                return answer.status_code, [line for line in answer.iter_lines() if line][-2:]

        work = [crowd.submit(ask, number) for number in range(streams)]
        wait_for(lambda: http.get("/health").json()["answers"] == streams)
        process.send_signal(signal.SIGTERM)
        lasts = [each.result(PATIENCE) for each in work]
    assert process.wait(PATIENCE) == 0
    streamed = [last for status, last in lasts if status == 200]
    assert len(streamed) >= 8
    for last in streamed:
        assert last[-1] == "data: [DONE]"
        assert "server_stopping" in last[-2]
    assert {status for status, _ in lasts} <= {200, 503}
    with open_store(tmp_path) as store:
        rows = store.read(select(usage))
    assert len(rows) >= 8
    assert all(row.completion_tokens > 0 for row in rows if row.ttft is not None)


def acknowledged_writes(home: Path, rounds: int, writers: int = 4) -> tuple[int, int]:
    """Kill a server at a random moment, so many times; returns writes acknowledged and lost."""
    known: list[str] = []
    for round_ in range(rounds):
        process, url, headers = begin(home)
        stop, heard = threading.Event(), threading.Event()

        def write(
            url: str = url,
            headers: dict[str, str] = headers,
            stop: threading.Event = stop,
            heard: threading.Event = heard,
        ) -> list[str]:
            done: list[str] = []
            with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
                while not stop.is_set():
                    try:
                        answer = http.post(TALK, json={})
                    except httpx.TransportError:
                        break
                    if answer.status_code == 200:
                        done.append(answer.json()["id"])
                        heard.set()
            return done

        with ThreadPoolExecutor(writers) as crowd:
            work = [crowd.submit(write) for _ in range(writers)]
            heard.wait(PATIENCE)
            time.sleep(0.1 + 0.05 * (round_ % 7))
            process.kill()
            process.wait(PATIENCE)
            stop.set()
            known += [id for each in work for id in each.result(PATIENCE)]
    with open_store(home) as store:
        kept = {row.id for row in store.read(select(objects.c.id))}
    return len(known), len(set(known) - kept)


@pytest.mark.slow
def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    """Slow: five rounds of starting and killing a process; the bench does a hundred."""
    written, lost = acknowledged_writes(tmp_path, 5)
    assert written > 0
    assert lost == 0
