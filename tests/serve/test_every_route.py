"""Every route as nobody, with a key that is revoked, past its end or without the scope, and as another tenant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from causerie.core import CauserieError
from causerie.serve import EnginePool, create_app, create_key, revoke_key
from causerie.serve import app as app_module
from causerie.serve.routes import ApiRoute
from causerie.serve.table import TABLE
from causerie.store import Store, now
from tests.serve.conftest import Running, Start, serving

OPEN = {"/health", "/health/live"}
"""What needs no key: whether the server is there."""


@pytest.fixture(scope="module")
def guarded(start: Start, shared_pool: EnginePool, store: Store, folder: Path, home: Path) -> Running:
    """A server that requires keys and serves everything."""
    life = [serving(shared_pool, folder)]
    return start(create_app(shared_pool, store=store, keys_required=True, lifespans=life, workspace=home))


@pytest.fixture(scope="module")
def http(guarded: Running) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=guarded.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def ids(guarded: Running, store: Store) -> dict[str, str]:
    """Objects of one tenant, by the name that paths give their ids."""
    _, key = create_key(store, "mine", project="mine", scopes=("inference", "platform", "manage"))
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as mine:
        file = mine.files.create(file=("x.txt", b"bonjour"), purpose="assistants")
        vectors = mine.vector_stores.create(file_ids=[file.id])
        talk = mine.conversations.create(items=[{"type": "message", "role": "user", "content": "a"}])
        answer = mine.responses.create(model="petit", input="x", max_output_tokens=16)
        kept = mine.chat.completions.create(
            model="petit", messages=[{"role": "user", "content": "a"}], max_tokens=2, store=True
        )
        upload = mine.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="assistants")
        item = mine.conversations.items.list(talk.id).data[0]
    return {
        "file_id": file.id,
        "vector_store_id": vectors.id,
        "conversation_id": talk.id,
        "response_id": answer.id,
        "completion_id": kept.id,
        "upload_id": upload.id,
        "item_id": item.id,
        "project_id": "mine",
        "model": "petit",
    }


def calls(app: Starlette) -> list[tuple[str, str]]:
    """Every method and path of the application."""
    return [
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
        if method != "HEAD" and route.path not in OPEN
    ]


def filled(path: str, ids: dict[str, str]) -> str:
    """A path with ids in the place of their names."""
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: ids.get(found[1], "nothing"), path)


@pytest.mark.parametrize("who", ["nobody", "wrong", "revoked", "expired", "archived"])
def test_no_route_opens_to_who_has_no_standing_key(
    who: str, guarded: Running, http: httpx.Client, store: Store, ids: dict[str, str]
) -> None:
    headers: dict[str, str] = {}
    if who == "wrong":
        headers = {"authorization": "Bearer sk-cau-" + "A" * 43}
    if who == "revoked":
        key_id, key = create_key(store, who, scopes=("*",))
        headers = {"api-key": key}
        assert http.get("/v1/models", headers=headers).status_code == 200
        revoke_key(store, key_id)
    if who == "expired":
        headers = {"api-key": create_key(store, who, scopes=("*",), expires=now() - 0.01)[1]}
    if who == "archived":
        _, root = create_key(store, "root", scopes=("admin",))
        admin = {"api-key": root}
        project = http.post("/v1/organization/projects", json={"name": "x"}, headers=admin).json()["id"]
        headers = {"api-key": create_key(store, who, scopes=("*",), project=project)[1]}
        assert http.post(f"/v1/organization/projects/{project}/archive", headers=admin).status_code == 200
    every = calls(guarded.server._app)
    assert len(every) > 3 * len(TABLE)
    for method, path in every:
        answer = http.request(method, filled(path, ids), headers=headers, json={})
        assert answer.status_code == 401, (method, path, answer.text)
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_no_route_opens_to_a_key_without_its_scope(
    guarded: Running, http: httpx.Client, store: Store, ids: dict[str, str]
) -> None:
    for route in TABLE:
        others = [f"{route.resource}.{action}" for action in ("read", "create", "update", "delete")]
        scopes = [scope for scope in others if scope != f"{route.resource}.{route.action}"]
        _, key = create_key(store, "narrow", scopes=(*scopes, "feedback"))
        answer = http.request(route.method, f"/v1/{filled(route.path, ids)}", headers={"api-key": key}, json={})
        assert answer.status_code == 403, (route.method, route.path)
        assert answer.json()["error"]["code"] == "missing_scope"


def test_another_tenant_reaches_nothing(
    guarded: Running, http: httpx.Client, store: Store, ids: dict[str, str]
) -> None:
    scopes = ("inference", "platform", "manage")
    _, theirs = create_key(store, "theirs", project="theirs", scopes=scopes)
    private = {name for name in ids if name != "model"}
    reached = 0
    for route in TABLE:
        names = set(re.findall(r"\{(\w+)", route.path))
        if not names & private:
            continue
        path = f"/v1/{filled(route.path, ids)}"
        answer = http.request(route.method, path, headers={"api-key": theirs}, json=body_of(route))
        assert answer.status_code in (403, 404), (route.method, route.path, answer.status_code, answer.text)
        reached += 1
    assert reached > 30
    _, mine = create_key(store, "mine again", project="mine", scopes=scopes)
    assert http.get(f"/v1/files/{ids['file_id']}/content", headers={"api-key": mine}).text == "bonjour"
    for listing in ("files", "vector_stores", "chat/completions", "batches", "evals", "fine_tuning/jobs"):
        assert http.get(f"/v1/{listing}", headers={"api-key": theirs}).json()["data"] == []


def body_of(route: ApiRoute) -> dict[str, Any]:
    """A body that the route takes, where an empty one would be refused before the object is looked for."""
    known: dict[str, dict[str, Any]] = {
        "conversations/{conversation_id}/items": {"items": [{"type": "message", "role": "user", "content": "a"}]},
        "conversations/{conversation_id}": {"metadata": {}},
        "chat/completions/{completion_id}": {"metadata": {}},
        "vector_stores/{vector_store_id}/search": {"query": "x"},
        "vector_stores/{vector_store_id}/files": {"file_id": "file-x"},
        "vector_stores/{vector_store_id}/files/{file_id}": {"attributes": {}},
        "vector_stores/{vector_store_id}/file_batches": {"file_ids": ["file-x"]},
        "uploads/{upload_id}/complete": {"part_ids": ["x"]},
        "organization/projects/{project_id}/users": {"user_id": "x"},
        "organization/projects/{project_id}/users/{user_id}": {"role": "owner"},
        "organization/projects/{project_id}/api_keys": {"name": "x"},
        "organization/projects/{project_id}/service_accounts": {"name": "x"},
    }
    return known.get(route.path, {})


@pytest.mark.parametrize("host", ["", "evil.example", "localhost/v1/models?", "a b", "[::1", "x" * 300, "a\tb", "@:0"])
def test_a_malformed_host_changes_nothing(host: str, guarded: Running, http: httpx.Client, ids: dict[str, str]) -> None:
    for method, path in calls(guarded.server._app):
        if path.startswith("/v1/") or not path.startswith("/openai"):
            answer = http.request(method, filled(path, ids), headers={"host": host}, json={})
            assert answer.status_code in (400, 401), (method, path, answer.status_code)


def test_the_process_refuses_to_start_with_a_route_that_nobody_guards(
    pool: EnginePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_route = ApiRoute("GET", "secrets", TABLE[0].endpoint, "", "")
    monkeypatch.setattr(app_module, "TABLE", (*TABLE, open_route))
    with pytest.raises(CauserieError) as caught:
        create_app(pool)
    assert caught.value.code == "CAU-6007"
