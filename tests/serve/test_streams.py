"""What happens around an answer: leaving clients, full servers, the end of the server, metering."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest
from sqlalchemy import delete, select
from starlette.applications import Starlette

from causerie.core import CauserieError
from causerie.serve import EnginePool, Gate, create_app, create_key
from causerie.serve import events as sse
from causerie.serve.metering import usage_log
from causerie.store import Store, usage
from tests.serve.conftest import ANSWER, Running, Script, ScriptedEngine, Start, serving
from tests.waiting import wait_for

QUESTION = {"model": "petit", "messages": [{"role": "user", "content": "a"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture
def metered(store: Store, server: Running) -> Store:
    """The store without any usage yet, nor any under way from the test before."""
    gate = server.server._app.state.office.pool.gate
    wait_for(lambda: gate.answers == 0 and usage_log(store).waiting == 0)
    store.write(delete(usage))
    return store


def lines_of(answer: httpx.Response) -> list[str]:
    return [line for line in answer.iter_lines() if line]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_engine(stream: bool, server: Running, script: Script, metered: Store) -> None:
    script.endless, script.delay = True, 0.1
    body = json.dumps(QUESTION | {"stream": stream, "max_tokens": 240, "n": 2}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.server.port)) as leaves:
        leaves.sendall(head + body)
        wait_for(lambda: script.live == 2 and script.drawn >= 4)
    wait_for(lambda: script.live == 0)
    assert script.peak == 2
    wait_for(lambda: metered.read(select(usage)))
    (row,) = metered.read(select(usage))
    assert row.status == 499
    assert row.completion_tokens > 0
    gate = server.server._app.state.office.pool.gate
    wait_for(lambda: (gate.answers, gate.tokens, +gate.by_key, gate.waiting) == (0, 0, {}, 0))


def test_one_leaving_client_leaves_the_others_alone(server: Running, script: Script) -> None:
    script.delay = 0.02
    body = QUESTION | {"stream": True}
    with httpx.Client(base_url=server.url, timeout=20) as http, http.stream("POST", CHAT, json=body) as stays:
        with http.stream("POST", CHAT, json=body) as leaves:
            next(leaves.iter_lines())
        text = [json.loads(line[6:]) for line in lines_of(stays) if line.startswith("data: {")]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in text) == ANSWER


def test_a_silent_stream_gets_heartbeats_that_clients_skip(
    server: Running, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    script.delay = 0.5
    body = QUESTION | {"stream": True, "max_tokens": 2}
    with httpx.stream("POST", server.url + CHAT, json=body, timeout=20) as answer:
        lines = lines_of(answer)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-causerie-version"] == "petit@3"
        assert answer.headers["x-request-id"].startswith("req_")
    assert sum(line.startswith(":") for line in lines) >= 2
    assert lines[-1] == "data: [DONE]"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        chunks = list(client.chat.completions.create(**body))
    assert chunks[-1].choices[0].finish_reason == "length"


def test_every_chunk_is_valid_utf8(server: Running, script: Script) -> None:
    script.answer = "🙂👩‍👩‍👧é日本"
    with httpx.stream("POST", server.url + CHAT, json=QUESTION | {"stream": True}) as answer:
        frames = [chunk.decode() for chunk in answer.iter_bytes()]
    pieces = [json.loads(line[6:]) for frame in frames for line in frame.split("\n") if line.startswith("data: {")]
    assert "".join(p["choices"][0]["delta"].get("content", "") for p in pieces) == script.answer


def test_a_full_server_refuses_with_retry_after(start: Start, script: Script, tokenizer: object, folder: Path) -> None:
    pool = EnginePool(lambda folder: ScriptedEngine(folder, script, tokenizer), gate=Gate(max_answers=2))
    running = start(create_app(pool, lifespans=[serving(pool, folder)]))
    script.endless, script.delay = True, 0.02
    script.max_seq_len = 90_000  # it does not end while the others ask
    with httpx.Client(base_url=running.url, timeout=60) as http:
        with http.stream("POST", CHAT, json=QUESTION | {"stream": True, "n": 2}) as first:
            lines = first.iter_lines()  # the connection is closed when this is forgotten
            next(lines)
            for stream in (False, True):
                answer = http.post(CHAT, json=QUESTION | {"stream": stream})
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "CAU-6006"
                assert int(answer.headers["retry-after"]) > 0
            assert http.get("/health").status_code == 200
        script.endless = False
        wait_for(lambda: script.live == 0)
        wait_for(lambda: http.post(CHAT, json=QUESTION).status_code == 200)


def test_a_key_with_too_much_under_way_gets_429(
    start: Start, script: Script, tokenizer: object, folder: Path, store: Store
) -> None:
    pool = EnginePool(lambda folder: ScriptedEngine(folder, script, tokenizer), gate=Gate(max_per_key=1))
    running = start(create_app(pool, store=store, keys_required=True, lifespans=[serving(pool, folder)]))
    (_, one), (_, other) = create_key(store, "one"), create_key(store, "other")
    script.delay, script.endless, script.max_seq_len = 0.05, True, 90_000
    body, mine = QUESTION | {"stream": True}, {"api-key": one}
    with (
        httpx.Client(base_url=running.url, timeout=60) as http,
        http.stream("POST", CHAT, json=body, headers=mine) as first,
    ):
        lines = first.iter_lines()
        next(lines)
        refused = http.post(CHAT, json=QUESTION, headers=mine)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "retry-after" in refused.headers
        accepted = http.post(CHAT, json=QUESTION | {"max_tokens": 1}, headers={"api-key": other})
        assert accepted.status_code == 200
    salts = {salt for _, _, salt in script.asked}
    assert len(salts) == 2
    assert "" not in salts


def test_each_request_is_metered_once(metered: Store, client: openai.OpenAI) -> None:
    got = client.chat.completions.create(**QUESTION, n=2)
    list(client.chat.completions.create(**QUESTION, stream=True))
    client.completions.create(model="petit", prompt=["x", "yy"], max_tokens=2)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**QUESTION, n=1000)
    answered = select(usage).where(usage.c.status == 200).order_by(usage.c.time)  # not what an earlier test broke off
    wait_for(lambda: len(metered.read(answered)) == 3)
    first, second, third = metered.read(answered)
    assert (first.prompt_tokens, first.completion_tokens) == (got.usage.prompt_tokens, got.usage.completion_tokens)
    assert second.completion_tokens * 2 == first.completion_tokens
    assert third.completion_tokens == 4
    for row in (first, second, third):
        assert (row.model, row.version_key, row.status) == ("petit@3", "ab" * 32, 200)
        assert 0 < row.ttft <= row.latency
    assert [row.finish for row in (first, second, third)] == ["stop", "stop", "length"]


def test_a_stopping_server_takes_nothing_new(app: Starlette) -> None:
    async def ask() -> list[httpx.Response]:
        app.state.office.drain.begin()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return [await http.post(CHAT, json=QUESTION), await http.get("/health")]

    refused, health = asyncio.run(ask())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
    assert "retry-after" in refused.headers
    assert (health.status_code, health.json()["status"]) == (503, "stopping")


def test_a_lifespan_that_fails_ends_the_server_with_its_error(pool: EnginePool, tmp_path: Path) -> None:
    from causerie.serve import Server

    server = Server(create_app(pool, lifespans=[serving(pool, tmp_path)]), port=0)
    with pytest.raises(CauserieError) as caught:
        server.run()
    assert caught.value.code == "CAU-1201"


PROGRAM = """
import sys
from causerie.serve import EnginePool, create_app, run_server
assert "torch" not in sys.modules
run_server(create_app(EnginePool()), port=0, on_ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


def test_a_server_process_holds_no_torch_and_ends_in_order_on_sigterm() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/health", timeout=60).json()["status"] == "starting"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "ended\n"
        assert process.wait(60) == 0
