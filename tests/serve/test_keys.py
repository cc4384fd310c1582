"""API keys, and who may talk to a server without them."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import openai
import pytest
from sqlalchemy import select
from starlette.routing import Route

from causerie.core import CauserieError
from causerie.serve import EnginePool, Server, create_app, create_key, revoke_key
from causerie.serve.table import TABLE
from causerie.store import Store, api_keys
from tests.serve.conftest import Running, Start, serving

CHAT = {"model": "petit", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def guarded(start: Start, shared_pool: EnginePool, store: Store, folder: Path) -> Running:
    """A server that requires keys."""
    return start(create_app(shared_pool, store=store, keys_required=True, lifespans=[serving(shared_pool, folder)]))


def test_a_key_opens_every_prefix_in_both_headers(guarded: Running, store: Store) -> None:
    _, key = create_key(store, "laptop")
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as client:
        assert client.models.list().data[0].id == "petit"
    azure = openai.AzureOpenAI(azure_endpoint=guarded.url, api_key=key, api_version="2024-10-21", max_retries=0)
    with azure:
        assert azure.chat.completions.create(**CHAT).choices[0].message.content


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}, {"api-key": "x"}, {"api-key": "é"}],
)
def test_no_route_of_the_api_opens_without_a_key(headers: dict[str, str], guarded: Running) -> None:
    office_routes = guarded.server._app.routes
    assert len(office_routes) > 3 * len(TABLE)
    with httpx.Client(base_url=guarded.url) as http:
        for route in office_routes:
            assert isinstance(route, Route)
            path = re.sub(r"\{[^}]+\}", "petit", route.path)
            for method in route.methods or ():
                sent = {name: value.encode() for name, value in headers.items()}
                answer = http.request(method, path, json=CHAT, headers=sent)
                assert answer.status_code == (200 if path.startswith("/health") else 401), path
                if answer.status_code == 401 and method != "HEAD":
                    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_a_revoked_key_is_worth_nothing(guarded: Running, store: Store) -> None:
    key_id, key = create_key(store, "old")
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{guarded.url}/v1/models", headers=headers).status_code == 200
    assert revoke_key(store, key_id)
    assert not revoke_key(store, key_id)
    assert httpx.get(f"{guarded.url}/v1/models", headers=headers).status_code == 401


def test_a_key_without_the_scope_is_refused(guarded: Running, store: Store) -> None:
    _, key = create_key(store, "reader", scopes=("feedback",))
    answer = httpx.get(f"{guarded.url}/v1/models", headers={"api-key": key})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")


def test_only_a_digest_is_stored(store: Store, home: Path) -> None:
    _, key = create_key(store, "laptop")
    _, other = create_key(store, "laptop")
    assert key != other
    assert len(key) >= 43 + len("sk-cau-")
    rows = store.read(select(api_keys))
    assert all(key not in str(value) for row in rows for value in row)
    assert not any(key.encode() in file.read_bytes() for file in home.glob("causerie.db*"))


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:80"},
        {"host": ""},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_sites_pages_cannot_use_a_server_without_keys(headers: dict[str, str], http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code in (400, 403)
    if answer.status_code == 403:
        assert answer.json()["error"]["code"] == "forbidden_origin"


def test_the_servers_own_page_can(http: httpx.Client, server: Running) -> None:
    headers = {"origin": server.url, "sec-fetch-site": "same-origin"}
    assert http.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


def test_a_server_that_others_reach_needs_keys(pool: EnginePool, store: Store) -> None:
    with pytest.raises(CauserieError) as caught:
        Server(create_app(pool, store=store), "0.0.0.0", 0)
    assert caught.value.code == "CAU-6001"
    server = Server(create_app(pool, store=store, keys_required=True), "0.0.0.0", 0)
    server._socket.close()


def test_a_taken_port_is_said(server: Running, pool: EnginePool) -> None:
    with pytest.raises(CauserieError) as caught:
        Server(create_app(pool), port=server.server.port)
    assert caught.value.code == "CAU-6002"
