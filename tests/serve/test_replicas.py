"""S15: two servers on one database, behind a proxy that spoils connections."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import select

from causerie.serve import create_app, create_key
from causerie.store import Store, objects, open_store
from tests.serve.conftest import ANSWER, Running, Script, ScriptedEngine, Start, serving
from tests.serve.fault_proxy import FAULTS, FaultProxy, fault_proxy
from tests.serve.test_faults import CHAT, QUESTION, TALK
from tests.waiting import wait_for

WHOLE = {"none", "delay", "drip"}
"""Faults that break nothing: every answer comes whole."""
BROKEN = {"cut request", "cut answer", "silence"}
"""Faults after which no answer is whole."""
SILENCE = 2.0
"""Seconds that the client waits for a silent server."""


def spoilt_requests(
    url: str, headers: dict[str, str], each: int, acknowledged: set[str], seconds: float = SILENCE
) -> Counter[str]:
    """What became of plain answers, streams and writes, `each` of a kind: "whole" or "broken".

    An answer that looks whole and is not fails. Ids of acknowledged writes are added to `acknowledged`. `seconds`
    is how long the client waits for the next bytes.
    """

    def ask(number: int) -> str:
        kind = ("plain", "stream", "write")[number % 3]
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=seconds) as http:
                if kind == "plain":
                    answer = http.post(CHAT, json=QUESTION)
                    assert answer.json()["usage"]["completion_tokens"] == 4
                elif kind == "write":
                    answer = http.post(TALK, json={})
                    acknowledged.add(answer.json()["id"])
                else:
                    body = QUESTION | {"stream": True, "max_tokens": 12, "stream_options": {"include_usage": True}}
                    with http.stream("POST", CHAT, json=body) as answer:
                        lines = [line[6:] for line in answer.iter_lines() if line]
                    assert lines[-1] == "[DONE]"
                    assert json.loads(lines[-2])["usage"]["completion_tokens"] == 12
                assert answer.status_code == 200
                return f"{kind} whole"
        except httpx.TransportError:
            return f"{kind} broken"

    with ThreadPoolExecutor(6) as crowd:
        return Counter(crowd.map(ask, range(3 * each)))


def kept_talks(home: Path) -> set[str]:
    """Ids of the objects in a workspace's database."""
    with open_store(home) as store:
        return {row.id for row in store.read(select(objects.c.id))}


@pytest.fixture(scope="module")
def replicas(
    start: Start, shared_pool: Any, script_of_module: Script, tokenizer: Any, store: Store, folder: Path, home: Path
) -> list[Running]:
    """Two servers with engines of their own, one database and one set of keys."""
    pools = [shared_pool, type(shared_pool)(lambda folder: ScriptedEngine(folder, script_of_module, tokenizer))]
    return [
        start(create_app(pool, store=store, keys_required=True, workspace=home, lifespans=[serving(pool, folder)]))
        for pool in pools
    ]


@pytest.fixture(scope="module")
def proxy(replicas: list[Running]) -> Iterator[FaultProxy]:
    """The proxy before them."""
    with fault_proxy([each.server.port for each in replicas]) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def headers(store: Store) -> dict[str, str]:
    """A key for both."""
    return {"api-key": create_key(store, "replicas", scopes=("*",))[1]}


@pytest.mark.parametrize("fault", FAULTS)
def test_answers_are_whole_or_broken_and_nothing_is_left(
    fault: str, proxy: FaultProxy, replicas: list[Running], headers: dict[str, str], store: Store
) -> None:
    acknowledged: set[str] = set()
    proxy.fault = fault
    seconds = SILENCE if fault == "silence" else 60.0
    found = spoilt_requests(f"http://127.0.0.1:{proxy.port}", headers, 2, acknowledged, seconds)
    outcomes = {name.partition(" ")[2] for name in found}
    if fault in WHOLE:
        assert outcomes == {"whole"}
    if fault in BROKEN:
        assert outcomes == {"broken"}
    gates = [each.server._app.state.office.pool.gate for each in replicas]
    wait_for(lambda: all((gate.answers, gate.tokens, gate.waiting) == (0, 0, 0) for gate in gates))
    assert acknowledged <= {row.id for row in store.read(select(objects.c.id))}
    for each in replicas:
        assert httpx.get(f"{each.url}/health").json()["status"] == "ok"


def test_the_official_client_gets_through_when_every_other_connection_is_cut(
    proxy: FaultProxy, headers: dict[str, str]
) -> None:
    """Its retries are ours to honour: what broke off may be sent again."""
    url = f"http://127.0.0.1:{proxy.port}/v1"
    proxy.fault = "cut answer"
    with openai.OpenAI(base_url=url, api_key=headers["api-key"], max_retries=4) as client:
        calls = iter(range(100))

        def heal(_request: httpx.Request) -> None:
            proxy.fault = "none" if next(calls) >= 2 else "cut answer"

        client._client.event_hooks["request"] = [heal]
        answer = client.chat.completions.create(model="petit", messages=[{"role": "user", "content": "a"}])
    assert answer.choices[0].message.content == ANSWER


def test_a_key_revoked_at_one_replica_is_soon_worth_nothing_at_the_other(replicas: list[Running], store: Store) -> None:
    from causerie.serve import revoke_key

    key_id, key = create_key(store, "both", scopes=("*",))
    for each in replicas:
        assert httpx.get(f"{each.url}/v1/models", headers={"api-key": key}).status_code == 200
    revoke_key(store, key_id)
    for each in replicas:
        wait_for(lambda each=each: httpx.get(f"{each.url}/v1/models", headers={"api-key": key}).status_code == 401)
