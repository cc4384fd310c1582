"""Projects, members, keys, quotas, prices and the audit log, through the API that administrators use."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import insert, select, update

from causerie.hub import verify_audit
from causerie.serve import EnginePool, create_app, create_key
from causerie.serve.organization.credentials import ROUTES as KEY_ROUTES
from causerie.serve.prices import PRICE, amount, price_at
from causerie.serve.scopes import GROUPS, covers, is_scope, role_scopes
from causerie.store import Store, accounts, api_keys, now, usage, users
from tests.serve.conftest import Running, Start, serving
from tests.waiting import wait_for

ORG = "/v1/organization"
CHAT: dict[str, Any] = {"model": "petit", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def guarded(start: Start, shared_pool: EnginePool, store: Store, folder: Path, home: Path) -> Running:
    """A server that requires keys."""
    life = [serving(shared_pool, folder)]
    return start(create_app(shared_pool, store=store, keys_required=True, lifespans=life, workspace=home))


@pytest.fixture
def admin(guarded: Running, store: Store) -> Iterator[httpx.Client]:
    """Whoever looks after the organization."""
    _, key = create_key(store, "root", scopes=("admin",))
    with httpx.Client(base_url=guarded.url + ORG, headers={"api-key": key}, timeout=20) as client:
        yield client


@pytest.fixture
def person(store: Store) -> str:
    """A person with an account."""
    name = f"u{time.time_ns()}"
    store.write(
        insert(users).values(id=name, pseudonym=name, role="member", created=now(), erased=None),
        insert(accounts).values(user=name, name=f"Ada {name}", created=now()),
    )
    return name


def ok(answer: httpx.Response) -> Any:
    """The body of a request that went well."""
    assert answer.status_code == 200, answer.text
    return answer.json()


def written(store: Store, project: str, count: int) -> list[Any]:
    """A project's rows of usage, once there are so many: they are written after the answer is sent."""
    query = select(usage).where(usage.c.project == project)
    wait_for(lambda: len(store.read(query)) >= count)
    return store.read(query)


def refused(answer: httpx.Response, status: int, code: str | None = None) -> None:
    """Check a refusal in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} == error.keys()
    assert code in (None, error["code"])


def chat(server: Running, key: str) -> httpx.Response:
    """One token of an answer."""
    return httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, headers={"api-key": key}, timeout=20)


def new_project(admin: httpx.Client, **body: Any) -> str:
    """A project's id."""
    return str(ok(admin.post("/projects", json={"name": "P", **body}))["id"])


def test_projects_from_creation_to_archive(admin: httpx.Client, guarded: Running, store: Store) -> None:
    made = ok(admin.post("/projects", json={"name": "Saisons", "limits": {"tokens_per_day": 5}}))
    assert (made["object"], made["status"], made["limits"]) == ("organization.project", "active", {"tokens_per_day": 5})
    assert ok(admin.post(f"/projects/{made['id']}", json={"name": "Étés"}))["name"] == "Étés"
    assert ok(admin.get(f"/projects/{made['id']}"))["limits"] == {"tokens_per_day": 5}
    assert {"default", made["id"]} <= {row["id"] for row in ok(admin.get("/projects"))["data"]}
    value = ok(admin.post(f"/projects/{made['id']}/api_keys", json={"name": "k"}))["value"]
    assert httpx.get(f"{guarded.url}/v1/models", headers={"api-key": value}).status_code == 200
    assert ok(admin.post(f"/projects/{made['id']}/archive"))["status"] == "archived"
    assert httpx.get(f"{guarded.url}/v1/models", headers={"api-key": value}).status_code == 401
    assert made["id"] not in {row["id"] for row in ok(admin.get("/projects"))["data"]}
    assert made["id"] in {row["id"] for row in ok(admin.get("/projects?include_archived=true"))["data"]}
    refused(admin.post(f"/projects/{made['id']}", json={"name": "x"}), 400, "project_archived")
    refused(admin.post("/projects/default/archive"), 400, "invalid_value")
    refused(admin.get("/projects/nothing"), 404, "not_found")
    refused(admin.post("/projects", json={"name": ""}), 400)
    refused(admin.post("/projects", json={"name": "x", "limits": {"tokens_per_day": -1}}), 400)
    assert ok(admin.post("/projects/default", json={"limits": {}}))["id"] == "default"
    assert verify_audit(store).ok


def test_a_key_is_shown_once_has_an_end_and_stops_at_once(admin: httpx.Client, guarded: Running, store: Store) -> None:
    project = new_project(admin)
    place = f"/projects/{project}/api_keys"
    made = ok(admin.post(place, json={"name": "laptop", "expires_in_days": 1}))
    key = made.pop("value")
    assert chat(guarded, key).status_code == 200
    listed = ok(admin.get(place))["data"]
    assert [row["id"] for row in listed] == [made["id"]]
    assert key not in admin.get(place).text
    assert listed[0]["redacted_value"] == f"{key[:12]}…"
    wait_for(lambda: ok(admin.get(f"{place}/{made['id']}"))["last_used_at"] is not None)
    assert ok(admin.post(f"{place}/{made['id']}", json={"name": "desk"}))["name"] == "desk"
    store.write(update(api_keys).where(api_keys.c.id == made["id"]).values(expires=now() - 1))
    store.touch(api_keys.name)
    refused(chat(guarded, key), 401, "invalid_api_key")
    second = ok(admin.post(place, json={"name": "other"}))
    assert chat(guarded, second["value"]).status_code == 200
    assert ok(admin.delete(f"{place}/{second['id']}"))["deleted"]
    refused(chat(guarded, second["value"]), 401, "invalid_api_key")
    refused(admin.get(f"/projects/default/api_keys/{made['id']}"), 404)
    refused(admin.post(place, json={"name": "x", "scopes": ["nonsense"]}), 400)
    refused(admin.post(place, json={"name": "x", "user_id": "nobody"}), 400)
    refused(admin.post(place, json={"name": "x", "expires_at": 1, "expires_in_days": 1}), 400)
    pages = [ok(admin.get(place, params={"limit": 1})), ok(admin.get(place, params={"limit": 1, "after": made["id"]}))]
    assert [(page["data"][0]["name"], page["has_more"]) for page in pages] == [("desk", True), ("other", False)]


def test_a_change_by_another_process_counts_within_a_moment(
    admin: httpx.Client, guarded: Running, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from causerie.serve import door

    monkeypatch.setattr(door, "FRESH_SECONDS", 0.05)
    key_id, key = create_key(store, "elsewhere")
    assert chat(guarded, key).status_code == 200
    store.write(update(api_keys).where(api_keys.c.id == key_id).values(revoked=now()))  # as another process does
    time.sleep(0.1)
    refused(chat(guarded, key), 401, "invalid_api_key")


def test_roles_bound_what_a_persons_keys_can_do(
    admin: httpx.Client, guarded: Running, store: Store, person: str
) -> None:
    project = new_project(admin)
    members = f"/projects/{project}/users"
    body = {"name": "k", "user_id": person, "scopes": ["inference", "platform", "manage"]}
    assert ok(admin.post(members, json={"user_id": person, "role": "reader"}))["role"] == "reader"
    refused(admin.post(members, json={"user_id": person}), 400, "already_member")
    refused(admin.post(members, json={"user_id": "nobody"}), 404)
    key = ok(admin.post(f"/projects/{project}/api_keys", json=body))
    assert key["owner"]["user"]["id"] == person
    mine = httpx.Client(base_url=guarded.url, headers={"api-key": key["value"]})
    with mine:
        assert mine.get("/v1/models").status_code == 200
        refused(mine.post("/v1/chat/completions", json=CHAT), 403, "missing_scope")
        ok(admin.post(f"{members}/{person}", json={"role": "member"}))
        assert mine.post("/v1/chat/completions", json=CHAT).status_code == 200
        refused(mine.get(f"{ORG}/projects/{project}/api_keys"), 403, "missing_scope")
        ok(admin.post(f"{members}/{person}", json={"role": "owner"}))
        assert ok(mine.get(f"{ORG}{members}"))["data"][0]["id"] == person
        refused(mine.get(f"{ORG}/projects/default/users"), 404)
        refused(mine.get(f"{ORG}/projects"), 403)
        refused(mine.post(f"{ORG}/projects/{project}/api_keys", json={"name": "x", "scopes": ["*"]}), 403)
        refused(mine.post(f"{ORG}/projects/{project}/api_keys", json={"name": "x", "scopes": ["admin"]}), 403)
        made = ok(mine.post(f"{ORG}/projects/{project}/api_keys", json={"name": "x", "scopes": ["file.read"]}))
        assert ok(mine.delete(f"{ORG}/projects/{project}/api_keys/{made['id']}"))["deleted"]
        assert ok(admin.delete(f"{members}/{person}"))["deleted"]
        refused(mine.get("/v1/models"), 401)
    refused(admin.get(f"{members}/{person}"), 404)


def test_people_are_shut_out_and_an_owner_stays(
    admin: httpx.Client, guarded: Running, store: Store, person: str
) -> None:
    assert ok(admin.get(f"/users/{person}"))["name"] == f"Ada {person}"
    assert person in {row["id"] for row in ok(admin.get("/users?limit=100"))["data"]}
    assert ok(admin.post(f"/users/{person}", json={"role": "owner"}))["role"] == "owner"
    refused(admin.post(f"/users/{person}", json={"role": "member"}), 400, "last_owner")
    refused(admin.delete(f"/users/{person}"), 400, "last_owner")
    boss = f"boss{time.time_ns()}"
    store.write(insert(users).values(id=boss, pseudonym=boss, role="admin", created=now(), erased=None))
    _, key = create_key(store, "theirs", user=person)
    assert chat(guarded, key).status_code == 200
    assert ok(admin.delete(f"/users/{person}"))["deleted"]
    refused(chat(guarded, key), 401)
    assert store.read(select(accounts.c.disabled).where(accounts.c.user == person))[0][0] is not None
    store.write(update(users).where(users.c.id == boss).values(role="member"))
    refused(admin.get("/users/nobody"), 404)


def test_programs_have_keys_of_their_own(admin: httpx.Client, guarded: Running) -> None:
    place = f"/projects/{new_project(admin)}/service_accounts"
    made = ok(admin.post(place, json={"name": "nightly"}))
    assert made["api_key"]["object"] == "organization.project.service_account.api_key"
    assert chat(guarded, made["api_key"]["value"]).status_code == 200
    assert [row["id"] for row in ok(admin.get(place))["data"]] == [made["id"]]
    assert "value" not in admin.get(f"{place}/{made['id']}").text
    assert ok(admin.delete(f"{place}/{made['id']}"))["deleted"]
    refused(chat(guarded, made["api_key"]["value"]), 401)
    refused(admin.get(f"{place}/{made['id']}"), 404)


def test_admin_keys_manage_and_draw_nothing(admin: httpx.Client, guarded: Running) -> None:
    hour = ok(admin.post("/admin_api_keys", json={"name": "hour", "expires_in_seconds": 3600}))
    assert hour["expires_at"] - hour["created_at"] in (3599, 3600, 3601)
    both = {"name": "b", "expires_in_seconds": 3600, "expires_in_days": 2}
    assert admin.post("/admin_api_keys", json=both).status_code == 400
    made = ok(admin.post("/admin_api_keys", json={"name": "ops", "expires_in_days": 2}))
    assert (made["object"], made["scopes"]) == ("organization.admin_api_key", ["admin"])
    refused(chat(guarded, made["value"]), 403, "missing_scope")
    assert httpx.get(f"{guarded.url}{ORG}/projects", headers={"api-key": made["value"]}).status_code == 200
    assert made["id"] in {row["id"] for row in ok(admin.get("/admin_api_keys?limit=100"))["data"]}
    assert ok(admin.get(f"/admin_api_keys/{made['id']}"))["id"] == made["id"]
    assert ok(admin.delete(f"/admin_api_keys/{made['id']}"))["deleted"]
    assert httpx.get(f"{guarded.url}{ORG}/projects", headers={"api-key": made["value"]}).status_code == 401


def test_quotas_of_keys_and_projects(admin: httpx.Client, guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    monkeypatch.setattr(guarded.server._app.state.office.pool.gate.quotas, "clock", lambda: begun)  # none fills
    project = new_project(admin)
    place = f"/projects/{project}/api_keys"
    key = ok(admin.post(place, json={"name": "k", "limits": {"requests_per_minute": 2}}))
    answers = [chat(guarded, key["value"]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
    refused(answers[2], 429, "rate_limit_exceeded")
    assert int(answers[2].headers["retry-after"]) == 30
    ok(admin.post(f"{place}/{key['id']}", json={"limits": {"requests_per_minute": 50}}))
    assert chat(guarded, key["value"]).status_code == 200
    rate = ok(admin.get(f"/projects/{project}/rate_limits"))["data"][0]
    assert rate["max_tokens_per_1_minute"] == 2**31 - 1  # not set
    changed = ok(admin.post(f"/projects/{project}/rate_limits/{rate['id']}", json={"max_tokens_per_1_day": 1}))
    assert changed["max_tokens_per_1_day"] == 1
    refused(chat(guarded, key["value"]), 429, "insufficient_quota")
    refused(admin.post(f"/projects/{project}/rate_limits/rl-x", json={}), 404)
    refused(admin.post(f"/projects/{project}/rate_limits/{rate['id']}", json={"max_tokens_per_1_day": -1}), 400)


def test_an_invoice_can_be_computed_again_from_the_rows(admin: httpx.Client, guarded: Running, store: Store) -> None:
    refused(admin.post("/prices", json={"model": "x", "input": -1, "output": 1}), 400)
    refused(admin.post("/prices", json={"model": "x", "input": 1, "output": 1, "currency": "EURO"}), 400)
    project = new_project(admin)
    key = ok(admin.post(f"/projects/{project}/api_keys", json={"name": "k"}))["value"]
    first = ok(admin.post("/prices", json={"model": "petit", "input": 2, "output": 10, "cached_input": 1}))
    wait_for(lambda: now() >= first["from"])
    begin = int(time.time())
    chat(guarded, key)
    second = ok(admin.post("/prices", json={"model": "*", "input": 7, "output": 7, "from": int(time.time()) + 9_999}))
    chat(guarded, key)
    rows = written(store, project, 2)
    assert [row.price for row in rows] == [first["id"]] * 2
    mine = ok(admin.get("/invoice", params={"start_time": begin, "project_id": project}))
    assert len(mine["lines"]) == 1
    line = mine["lines"][0]
    assert (line["requests"], line["price_id"]) == (2, first["id"])
    owed = (line["input_tokens"] * 2 + line["output_tokens"] * 10) / 1e6
    assert line["amount"] == pytest.approx(owed, rel=1e-12)
    assert mine["totals"]["usd"] == pytest.approx(owed)
    costs = ok(admin.get("/costs", params={"start_time": begin, "group_by": "project_id"}))["data"]
    found = [result for bucket in costs for result in bucket["results"] if result["project_id"] == project]
    assert sum(result["amount"]["value"] for result in found) == pytest.approx(owed)
    refused(admin.post("/prices", json={"model": "petit", "input": 1, "output": 1, "from": 5}), 400, "invalid_value")
    refused(admin.get("/invoice"), 400)
    assert {first["id"], second["id"]} <= {price["id"] for price in ok(admin.get("/prices"))["data"]}


def test_the_price_in_force() -> None:
    prices = [
        {"id": "a", "model": "*", "from": 0, "input": 1.0, "output": 1.0},
        {"id": "b", "model": "m", "from": 10, "input": 2.0, "output": 3.0, "cached_input": 0.5},
        {"id": "c", "model": "m@2", "from": 20, "input": 4.0, "output": 4.0},
    ]
    asked = [("m@2", 5), ("m@2", 15), ("m@2", 25), ("m@3", 25), ("n", 25), (None, 5)]
    found = [price_at(prices, model, moment) for model, moment in asked]
    assert [price and price["id"] for price in found] == ["a", "b", "c", "b", "a", None]
    assert amount(prices[1], 10, 4, 2) == pytest.approx((6 * 2 + 4 * 0.5 + 2 * 3) / 1e6)
    assert PRICE == "price"


def test_every_change_is_in_the_audit_log(admin: httpx.Client, store: Store) -> None:
    project = new_project(admin)
    log = ok(admin.get("/audit_logs", params={"subject": project}))["data"]
    assert [(entry["type"], entry["actor"]["type"]) for entry in log] == [("project.created", "api_key")]
    page = ok(admin.get("/audit_logs?limit=1"))
    assert page["has_more"]
    older = ok(admin.get("/audit_logs", params={"limit": 1, "after": page["last_id"]}))["data"]
    assert older[0]["id"] != page["data"][0]["id"]
    assert ok(admin.get("/audit_logs?event=nothing"))["data"] == []
    refused(admin.get("/audit_logs?after=x"), 400)
    assert verify_audit(store).ok


def test_openais_own_client_reads_them(admin: httpx.Client) -> None:
    with openai.OpenAI(
        base_url=str(admin.base_url).replace("/organization", ""), api_key="x", admin_api_key=admin.headers["api-key"]
    ) as client:
        project = client.admin.organization.projects.create(name="SDK")
        assert project.status == "active"
        assert project.id in {each.id for each in client.admin.organization.projects.list()}
        account = client.admin.organization.projects.service_accounts.create(project.id, name="bot")
        assert account.api_key is not None
        keys = list(client.admin.organization.projects.api_keys.list(project.id))
        assert keys[0].redacted_value.startswith("sk-cau-")
        assert next(iter(client.admin.organization.audit_logs.list(limit=3))).id
        assert client.admin.organization.projects.archive(project.id).status == "archived"


def test_scopes_and_roles() -> None:
    assert all(is_scope(scope) for scope in [*GROUPS, "file", "file.read"])
    assert not any(is_scope(scope) for scope in ["", "file.", "x", "file.x", "admin.read", ".read"])
    assert covers(("platform",), "file.read")
    assert not covers(("file.read",), "file")
    assert not covers(("inference", "platform", "manage"), "*")
    assert not covers(("manage",), "admin")
    assert covers(("*",), "admin")
    assert role_scopes("admin") == role_scopes("owner", "reader") == ("*",)
    assert role_scopes("member") == ("inference", "platform")
    assert role_scopes("member", "owner") == ("inference", "platform", "manage")
    assert role_scopes("reader", "owner") == ("*.read",)
    assert len(KEY_ROUTES) == 13
