"""What the cookie of somebody on the page opens of the API, and what it does not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from causerie.chat import create_chat_app
from causerie.hub import register
from causerie.serve import EnginePool, Server
from causerie.store import open_store
from causerie.text import Tokenizer
from tests.waiting import PATIENCE, wait_for

from .conftest import IMPROVE, FakeEngine, Script, make_model
from .test_signin import PASSWORD, House, house

__all__ = ["house"]

SINCE = "start_time=0"
READ = ("/v1/organization/costs?" + SINCE, "/v1/organization/usage/completions?" + SINCE, "/v1/organization/prices")
CLOSED = (
    ("GET", "/v1/organization/projects"), ("GET", "/v1/organization/users"), ("GET", "/v1/organization/audit_logs"),
    ("GET", "/v1/files"), ("GET", "/v1/models"), ("GET", "/metrics"),
)  # fmt: skip


def test_an_admin_on_the_page_reads_usage_and_costs_and_sets_prices(house: House) -> None:
    house.accounts.create("Ada", PASSWORD, "admin")
    with house.visitor("Ada") as ada:
        for path in READ:
            assert ada.get(path).status_code == 200, path
        for method, path in CLOSED:
            if path != "/metrics":
                assert ada.request(method, path).status_code == 403, path
        asked = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
        assert ada.post("/v1/chat/completions", json=asked).status_code == 403, "its tokens would pass by the quota"
        price = {"model": "*", "currency": "eur", "input": 2.0, "output": 8.0}
        assert ada.post("/v1/organization/prices", json=price).status_code == 200
        assert ada.get("/v1/organization/prices").json()["data"][0]["currency"] == "eur"


def test_members_strangers_and_other_pages_find_it_closed(house: House) -> None:
    house.accounts.create("Ada", PASSWORD, "admin")
    house.accounts.create("Grace", PASSWORD, "member")
    with house.visitor() as nobody, house.visitor("Grace") as grace, house.visitor("Ada") as ada:
        for path in READ:
            assert nobody.get(path).status_code == 401, path
            assert grace.get(path).status_code == 401, path
            assert ada.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 401, path
            assert ada.get(path, headers={"cookie": "causerie_session=x"}).status_code == 401, path
        price = {"model": "*", "input": 2.0, "output": 8.0}
        elsewhere: list[dict[str, str]] = [
            {"origin": "http://evil.example"}, {"sec-fetch-site": "same-site"}, {"content-type": "text/plain"},
        ]  # fmt: skip
        for headers in elsewhere:
            assert ada.post("/v1/organization/prices", json=price, headers=headers).status_code == 401, headers
        assert ada.delete("/api/session").status_code == 200
        assert ada.get(READ[0]).status_code == 401, "signed out"


def test_what_a_person_asks_is_charged_to_them_by_the_price_in_force(house: House) -> None:
    person = house.accounts.create("Ada", PASSWORD, "admin")
    with house.visitor("Ada") as ada:
        price = {"model": "demo", "currency": "chf", "input": 1e6, "output": 2e6}
        ada.post("/v1/organization/prices", json=price)
        time.sleep(1.1)  # it holds from the next second on
        talk = ada.post("/api/conversations", json={}).json()["id"]
        body = {"conversation": talk, "model": "demo", "content": "What colour?"}
        assert ada.post("/api/chat", json=body).status_code == 200
        usage = _sum(ada, "usage/completions", lambda one: (one["input_tokens"], one["output_tokens"]), person.id)
        cost = _sum(ada, "costs", lambda one: (one["amount"]["value"],), person.id)
        assert cost == [pytest.approx(usage[0] * 1.0 + usage[1] * 2.0)]
        assert usage[1] > 0


def _sum(client: httpx.Client, path: str, read: Any, person: str) -> list[float]:
    start = int(time.time()) - 3600
    asked = f"/v1/organization/{path}?start_time={start}&bucket_width=1d&limit=2&group_by[]=api_key_id"
    read_all = lambda: [one for bucket in client.get(asked).json()["data"] for one in bucket["results"]]  # noqa: E731
    wait_for(read_all)  # usage is written behind the answer
    found = read_all()
    assert {one["api_key_id"] for one in found} == {person}
    return [sum(values) for values in zip(*map(read, found), strict=True)]


@pytest.fixture
def keyed(workspace: Path, tokenizer: Tokenizer) -> Iterator[str]:
    """A server for one person on the loopback address that asks programs for keys."""
    with open_store(workspace) as store:
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        pool = EnginePool(make_engine=lambda folder: FakeEngine(folder, Script()))
        app = create_chat_app(
            workspace, store, pool, keys_required=True, improve_command=(sys.executable, str(IMPROVE))
        )
        ready = threading.Event()
        server = Server(app, "127.0.0.1", 0, grace=1, on_ready=lambda _url: ready.set())
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        yield server.url
        server.stop()
        thread.join(PATIENCE)


def test_without_accounts_only_the_page_itself_is_let_in_without_a_key(keyed: str) -> None:
    own = {"sec-fetch-site": "same-origin"}
    for path in READ:
        assert httpx.get(keyed + path).status_code == 401, "a program without a key"
        assert httpx.get(keyed + path, headers=own).status_code == 200
        assert httpx.get(keyed + path, headers={**own, "host": "evil.example"}).status_code == 401
        assert httpx.get(keyed + path, headers={"sec-fetch-site": "cross-site"}).status_code == 401
    assert httpx.get(keyed + "/v1/models", headers=own).status_code == 403
