"""Quotas and turns under real concurrency, over HTTP: exactly what was promised passes, and nothing is left held."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, select, update

from causerie.serve import EnginePool, Gate, Limits, create_app, create_key
from causerie.serve.keys import find_key
from causerie.serve.metering import usage_log
from causerie.store import Store, api_keys, new_id, now, usage
from causerie.text import Tokenizer
from tests.serve.conftest import Running, Script, ScriptedEngine, Start, serving
from tests.serve.test_faults import CHAT, QUESTION, head
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def guarded(
    start: Start, script_of_module: Script, tokenizer: Tokenizer, store: Store, folder: Path, home: Path
) -> Running:
    """A server that requires keys, with a small gate."""
    gate = Gate(max_answers=100, max_tokens=10**6, max_per_key=8, max_running=4)
    pool = EnginePool(lambda place: ScriptedEngine(place, script_of_module, tokenizer), gate=gate)
    life = [serving(pool, folder)]
    return start(create_app(pool, store=store, keys_required=True, lifespans=life, workspace=home))


@pytest.fixture
def gate(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Its gate, which must be empty after every test. Its clock stands still: no quota fills while a test is slow."""
    found: Gate = guarded.server._app.state.office.pool.gate
    begun = time.monotonic()
    monkeypatch.setattr(found.quotas, "clock", lambda: begun)
    yield found
    wait_for(lambda: (found.answers, found.tokens, found.waiting) == (0, 0, 0))
    assert not found.by_key
    assert not found.by_tenant


def crowd(server: Running, key: str, requests: int, **body: Any) -> list[httpx.Response]:
    """Answers to requests sent at the same time."""
    with (
        httpx.Client(base_url=server.url, headers={"api-key": key}, timeout=60) as http,
        ThreadPoolExecutor(16) as many,
    ):
        return list(many.map(lambda _: http.post(CHAT, json=QUESTION | body), range(requests)))


@pytest.mark.parametrize("allowed", [1, 5, 12])
def test_exactly_the_requests_of_a_minute_pass(allowed: int, guarded: Running, gate: Gate, store: Store) -> None:
    _, key = create_key(store, "racer", project=f"racer {allowed}", limits=Limits(requests_per_minute=allowed))
    before = gate.refused["concurrency"]
    answers = crowd(guarded, key, 16 if allowed < 5 else 24, max_tokens=1)
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 429}
    under_way = gate.refused["concurrency"] - before
    assert min(allowed, len(answers) - under_way) <= statuses[200] <= allowed
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            assert int(answer.headers["retry-after"]) >= 1


def test_tokens_that_were_not_drawn_are_given_back(guarded: Running, gate: Gate, store: Store, script: Script) -> None:
    """Each request may need 200 tokens and draws few: one after the other, all pass under a quota of 400 a minute."""
    script.answer = "é"
    _, key = create_key(store, "thrifty", project="thrifty", limits=Limits(tokens_per_minute=400))
    with httpx.Client(base_url=guarded.url, headers={"api-key": key}, timeout=60) as http:
        for _ in range(6):
            answer = http.post(CHAT, json=QUESTION | {"max_tokens": 200})
            assert answer.status_code == 200, answer.text
            assert int(answer.headers["x-ratelimit-limit-tokens"]) == 400


def test_two_keys_of_a_project_share_its_quota(guarded: Running, gate: Gate, store: Store) -> None:
    with httpx.Client(base_url=guarded.url, timeout=60) as http:
        admin = {"api-key": create_key(store, "root", scopes=("admin",))[1]}
        made = http.post(
            "/v1/organization/projects", json={"name": "p", "limits": {"requests_per_minute": 6}}, headers=admin
        )
        project = made.json()["id"]
        keys = [create_key(store, name, project=project)[1] for name in "ab"]
        with ThreadPoolExecutor(8) as many:
            asked = [keys[number % 2] for number in range(16)]
            send = lambda key: http.post(CHAT, json=QUESTION | {"max_tokens": 1}, headers={"api-key": key})  # noqa: E731
            statuses = Counter(answer.status_code for answer in many.map(send, asked))
    assert statuses == {200: 6, 429: 10}


def test_one_key_holds_no_more_answers_than_it_may(guarded: Running, gate: Gate, store: Store, script: Script) -> None:
    script.held_after = 0
    _, key = create_key(store, "greedy", project="greedy")
    before = gate.refused["concurrency"]
    with ThreadPoolExecutor(1) as many:
        held = many.submit(crowd, guarded, key, 8, max_tokens=6)
        wait_for(lambda: gate.answers == 8)
        refused = crowd(guarded, key, 8, max_tokens=6)
        script.held_after = None
        answers = held.result()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.status_code for answer in refused} == {429}
    assert script.peak == 4
    assert gate.refused["concurrency"] == before + 8


def test_n_answers_count_as_n(guarded: Running, gate: Gate, store: Store) -> None:
    _, key = create_key(store, "many", project="many")
    answers = [crowd(guarded, key, 1, n=n)[0].status_code for n in (8, 9)]
    assert answers == [200, 429]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("phase", ["queued", "drawing"])
def test_who_leaves_gives_everything_back(
    phase: str, stream: bool, guarded: Running, gate: Gate, store: Store, script: Script
) -> None:
    """A client goes away while it waits, or while its answer is drawn; what was drawn is paid for, no more."""
    script.delay, script.endless, script.max_seq_len = 0.01, True, 10_000
    key_id, key = create_key(
        store, "leaver", project=f"leaver {phase} {stream}", limits=Limits(tokens_per_minute=50_000)
    )
    body = json.dumps(QUESTION | {"max_tokens": 5_000, "stream": stream}).encode()
    asking = head(guarded, body, extra=f"api-key: {key}\r\n".encode())
    held = [socket.create_connection(("127.0.0.1", guarded.server.port)) for _ in range(4 if phase == "queued" else 0)]
    for each in held:
        each.sendall(asking)
    wait_for(lambda: script.live == len(held))
    with socket.create_connection(("127.0.0.1", guarded.server.port)) as leaves:
        leaves.sendall(asking)
        wait_for(lambda: gate.waiting == 1 if phase == "queued" else script.live == 1)
    wait_for(lambda: gate.waiting == 0 and script.live == len(held))
    for each in held:
        each.close()
    wait_for(lambda: script.live == 0 and gate.tokens == 0)
    bucket = gate.quotas._kept[key_id, "tokens_per_minute"]
    assert bucket.level > 40_000
    wait_for(lambda: usage_log(store).waiting == 0)
    rows = store.read(select(usage.c.status, usage.c.completion_tokens).where(usage.c.key_id == key_id))
    assert {row.status for row in rows} == {499}
    assert all(0 <= row.completion_tokens < 5_000 for row in rows)


def test_metering_equals_what_was_told(guarded: Running, gate: Gate, store: Store) -> None:
    """Over a crowd of plain and streamed requests, the rows add up to the answers' own usage."""
    key_id, key = create_key(store, "metered", project="metered")
    told = []
    with httpx.Client(base_url=guarded.url, headers={"api-key": key}, timeout=60) as http:
        for number in range(10):
            if number % 2:
                told.append(http.post(CHAT, json=QUESTION | {"max_tokens": number + 1}).json()["usage"])
                continue
            body = QUESTION | {"max_tokens": number + 1, "stream": True, "stream_options": {"include_usage": True}}
            with http.stream("POST", CHAT, json=body) as answer:
                lines = [line[6:] for line in answer.iter_lines() if line]
            told.append(json.loads(lines[-2])["usage"])
    wait_for(lambda: gate.answers == 0 and usage_log(store).waiting == 0)
    sums = select(func.sum(usage.c.prompt_tokens), func.sum(usage.c.completion_tokens), func.count())
    row = store.read(sums.where(usage.c.key_id == key_id))[0]
    assert tuple(row) == (
        sum(each["prompt_tokens"] for each in told),
        sum(each["completion_tokens"] for each in told),
        10,
    )


def test_a_days_usage_is_added_up_when_its_quota_is_first_seen(store: Store) -> None:
    """Not at each look at the key: a busy server's day has a million rows."""

    def uses(tokens: int) -> None:
        row = {"request_id": new_id("req"), "time": now(), "key_id": id, "route": CHAT, "status": 200}
        store.write(insert(usage).values(**row, prompt_tokens=tokens, completion_tokens=0))

    id, key = create_key(store, "counted", project="counted", limits=Limits(requests_per_minute=5))
    uses(7)
    unlimited = find_key(store, key)
    assert unlimited is not None
    assert unlimited.spent == (0, 0)
    daily = asdict(Limits(tokens_per_day=100))
    store.write(update(api_keys).where(api_keys.c.id == id).values(limits=daily))
    first = find_key(store, key, unlimited)
    assert first is not None
    assert first.spent == (7, 0)
    uses(5)
    again, anew = find_key(store, key, first), find_key(store, key)
    assert again == first
    assert anew is not None
    assert anew.spent == (12, 0)
