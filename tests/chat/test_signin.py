"""Accounts, sessions, roles, quotas, throttling, and an identity provider that is not one."""

from __future__ import annotations

import base64
import hashlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import insert, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from causerie.chat import accounts as accounts_module
from causerie.chat.accounts import Accounts
from causerie.chat.oidc import Provider
from causerie.chat.signin import Door
from causerie.chat.throttle import Throttle
from causerie.core import CauserieError
from causerie.feedback import erase_user
from causerie.hub import list_audit, register
from causerie.serve.metering import usage_log
from causerie.store import Store, accounts, now, open_store, sessions, usage
from causerie.text import Tokenizer
from tests.waiting import PATIENCE, wait_for

from .conftest import IMPROVE, Script, make_model, start_server

PASSWORD = "correct horse"


class House:
    """A server that people sign in to."""

    def __init__(self, url: str, store: Store, door: Door) -> None:
        self.url, self.store, self.door = url, store, door
        assert door.accounts is not None
        self.accounts: Accounts = door.accounts

    @contextmanager
    def visitor(self, name: str | None = None) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            if name is not None:
                answer = client.post("/api/session", json={"name": name, "password": PASSWORD})
                assert answer.status_code == 200, answer.text
            yield client


@pytest.fixture
def house(workspace: Path, tokenizer: Tokenizer, request: pytest.FixtureRequest) -> Iterator[House]:
    with open_store(workspace) as store:
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        door = Door(Accounts(store), getattr(request, "param", None))
        server, thread = start_server(workspace, store, Script(), (sys.executable, str(IMPROVE)), door=door)
        yield House(server.url, store, door)
        server.stop()
        thread.join(PATIENCE)


def test_the_first_admin_needs_the_code_and_there_is_only_one_first(house: House) -> None:
    with house.visitor() as client:
        assert client.get("/api/session").json() == {"person": None, "accounts": True, "first": True, "oidc": False}
        body = {"code": "guess", "name": "Ada", "password": PASSWORD}
        assert client.post("/api/session/first", json=body).json()["error"]["code"] == "CAU-6112"
        body["code"] = house.accounts.code
        assert client.post("/api/session/first", json={**body, "password": "short"}).status_code == 400
        made = client.post("/api/session/first", json=body)
        assert made.json()["person"]["role"] == "admin"
        cookie = made.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert client.get("/api/state").json()["user"]["name"] == "Ada"
        again = client.post("/api/session/first", json={**body, "code": ""})
        assert again.status_code in (400, 401)
    row = house.store.first(select(accounts))
    assert row is not None
    assert row.password.startswith("$argon2id$")
    (session,) = house.store.read(select(sessions))
    assert len(session.sha256) == 64
    assert Accounts(house.store).code == ""


def test_nobody_gets_in_without_signing_in_and_nobody_sees_anothers_things(house: House) -> None:
    house.accounts.create("Ada", PASSWORD, "admin")
    house.accounts.create("Grace", PASSWORD, "member")
    with house.visitor() as nobody, house.visitor("ada") as ada, house.visitor("Grace") as grace:
        for method, path in (
            ("GET", "/api/state"),
            ("GET", "/api/conversations"),
            ("POST", "/api/improve"),
            ("GET", "/api/runs"),
        ):
            assert nobody.request(method, path, json=None if method == "GET" else {}).status_code == 401, path
        assert nobody.get("/v1/models").status_code == 401
        assert nobody.get("/").status_code == 200
        mine = ada.post("/api/conversations", json={"title": "Secret tides"}).json()["id"]
        assert grace.get(f"/api/conversations/{mine}").status_code == 404
        assert grace.patch(f"/api/conversations/{mine}", json={"title": "x"}).status_code == 404
        assert grace.delete(f"/api/conversations/{mine}").status_code == 404
        assert grace.post(f"/api/conversations/{mine}/restore").status_code == 404
        assert grace.get(f"/api/conversations/{mine}/export").status_code == 404
        assert grace.get("/api/search?q=tides").json()["found"] == []
        assert [hit["id"] for hit in ada.get("/api/search?q=tides").json()["found"]] == [mine]
        with ada.stream(
            "POST", "/api/chat", json={"conversation": mine, "model": "demo", "content": "Hello"}
        ) as answer:
            turn = next(answer.iter_text()).split('"turn": "')[1].split('"')[0]
        assert grace.get(f"/api/chat/{turn}").status_code == 404
        assert grace.delete(f"/api/chat/{turn}").status_code == 404
        for method, path in (
            ("GET", "/api/admin/accounts"), ("GET", "/api/admin/keys"), ("POST", "/api/admin/keys"), ("DELETE", "/api/trials/demo@2"),
            ("GET", "/api/admin/audit"), ("POST", "/api/improve"), ("DELETE", "/api/improve"), ("POST", "/api/rollback"),
        ):  # fmt: skip
            refused = grace.request(method, path, json={} if method == "POST" else None)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "CAU-6113"), path
        assert grace.delete("/api/session").status_code == 200
        assert grace.get("/api/state").status_code == 401


def test_admins_look_after_accounts_keys_and_quotas(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "DAY", 1e12)  # a day that does not end while this test asks
    house.accounts.create("Ada", PASSWORD, "admin")
    with house.visitor("Ada") as ada:
        me = ada.get("/api/session").json()["person"]["id"]
        user = ada.post("/api/admin/accounts", json={"name": "Alan", "password": PASSWORD}).json()["id"]
        assert ada.post("/api/admin/accounts", json={"name": "ALAN", "password": PASSWORD}).status_code == 400
        with house.visitor("Alan") as alan:
            ada.patch(f"/api/admin/accounts/{user}", json={"daily_tokens": 50})
            row = {"request_id": "r1", "time": now(), "key_id": user, "route": "/api/chat", "status": 200}
            house.store.write(insert(usage).values(**row, prompt_tokens=40, completion_tokens=20))
            talk = alan.post("/api/conversations", json={}).json()["id"]
            over = alan.post("/api/chat", json={"conversation": talk, "model": "demo", "content": "Hello"})
            assert (over.status_code, over.json()["error"]["code"]) == (429, "CAU-6114")
            ada.patch(f"/api/admin/accounts/{user}", json={"daily_tokens": None})
            assert (
                alan.post("/api/chat", json={"conversation": talk, "model": "demo", "content": "Hello"}).status_code
                == 200
            )
            ada.patch(f"/api/admin/accounts/{user}", json={"disabled": True})
            assert alan.get("/api/state").status_code == 401
        for values in ({"disabled": True}, {"role": "member"}):
            assert ada.patch(f"/api/admin/accounts/{me}", json=values).status_code == 400
        assert ada.patch("/api/admin/accounts/usr_nobody", json={"role": "admin"}).status_code == 404
        listed = ada.get("/api/admin/accounts").json()["accounts"]
        assert [one["name"] for one in listed] == ["Ada", "Alan"]
        assert "argon2" not in str(listed)
        made = ada.post("/api/admin/keys", json={"name": "notebook"}).json()
        headers = {"authorization": f"Bearer {made['key']}"}
        assert httpx.get(f"{house.url}/v1/models", headers=headers).status_code == 200
        assert made["key"] not in ada.get("/api/admin/keys").text
        assert ada.delete(f"/api/admin/keys/{made['id']}").status_code == 200
        assert httpx.get(f"{house.url}/v1/models", headers=headers).status_code == 401
        spent = ada.get("/v1/organization/usage/completions?start_time=0&bucket_width=1d").json()
        assert spent["object"] == "page"
        told = ada.get("/api/admin/audit").json()
        assert told["intact"] is True
        assert {"account created", "key revoked"} <= {entry["action"] for entry in told["entries"]}


def test_a_daily_quota_counts_what_is_not_on_the_disk_yet(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of an answer are written behind it; who asks again at once has used its tokens all the same."""
    monkeypatch.setattr(accounts_module, "DAY", 1e12)
    person, other = (house.accounts.create(name, PASSWORD, "member") for name in ("Ada", "Grace"))
    for each in (person, other):
        house.accounts.change(each.id, {"daily_tokens": 60}, other)
    busy = threading.Event()
    house.store.submit_work(lambda _: busy.wait(PATIENCE))
    row = {"request_id": "r1", "time": now(), "key_id": person.id, "route": "/api/chat", "status": 200, "latency": 0.1}
    usage_log(house.store).add({**row, "prompt_tokens": 40, "completion_tokens": 20})
    for _ in range(2):
        with pytest.raises(CauserieError, match="used up"):
            house.accounts.check_quota(person)
        house.accounts.check_quota(other)
        assert {one["name"]: one["used_today"] for one in house.accounts.all()} == {"Ada": 60, "Grace": 0}
        busy.set()
        wait_for(lambda: not usage_log(house.store).waiting)


def test_guessing_is_slowed_down(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    monkeypatch.setattr(house.door.throttle, "_clock", lambda: begun)
    house.accounts.create("Ada", PASSWORD, "admin")
    with house.visitor() as client:
        codes = [
            client.post("/api/session", json={"name": "Ada", "password": f"guess {number}"}).status_code
            for number in range(7)
        ]
        assert codes[:5] == [401] * 5
        assert 429 in codes[5:]
    assert any(row.action == "sign-in refused" for row in list_audit(house.store))


def test_the_throttle_doubles_forgets_and_is_bounded() -> None:
    clock = [0.0]
    throttle = Throttle(lambda: clock[0])
    for _ in range(6):
        throttle.failed("x")
    with pytest.raises(CauserieError) as caught:
        throttle.check("x", "y")
    assert caught.value.code == "CAU-6114"
    throttle.check("y")
    clock[0] = 2.1
    throttle.check("x")
    throttle.failed("x")
    clock[0] += 3.9
    with pytest.raises(CauserieError):
        throttle.check("x")
    throttle.succeeded("x")
    throttle.check("x")
    for number in range(10_050):
        throttle.failed(str(number))
    assert len(throttle._failures) == 10_000


def test_erasing_a_person_takes_the_account_and_its_sessions(house: House) -> None:
    person = house.accounts.create("Ada", PASSWORD, "admin")
    secret = house.accounts.open_session(person)
    assert house.accounts.of_session(secret) == person
    erase_user(house.store, person.id)
    assert house.accounts.of_session(secret) is None
    assert house.store.first(select(accounts)) is None


class FakeProvider:
    """A small OpenID Connect provider: one person, real keys, PKCE checked."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "k1"})
        self.signing = self.key
        self.codes: dict[str, dict[str, str]] = {}
        self.spoil: dict[str, Any] = {}
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.metadata),
                Route("/jwks", self.jwks),
                Route("/token", self.token, methods=["POST"]),
                Route("/authorize", self.agreed),
            ]
        )

    async def metadata(self, _request: Request) -> JSONResponse:
        ends = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/jwks"}
        return JSONResponse({"issuer": self.url, **{name: self.url + path for name, path in ends.items()}})

    async def jwks(self, _request: Request) -> JSONResponse:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def token(self, request: Request) -> JSONResponse:
        form = await request.form()
        asked = self.codes.pop(str(form["code"]))
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        claims = {
            "iss": self.url,
            "aud": "causerie",
            "sub": "s1",
            "exp": int(time.time()) + 60,
            "nonce": asked["nonce"],
        }
        claims |= {"preferred_username": "grace", **self.spoil}
        token = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self.signing)
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": token})

    async def agreed(self, request: Request) -> RedirectResponse:
        return RedirectResponse(self.authorize(str(request.url)), 303)

    def authorize(self, address: str) -> str:
        """What a person agreeing on the provider's page leads to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert asked["code_challenge_method"] == "S256"
        self.codes["c1"] = asked
        return f"{asked['redirect_uri']}?code=c1&state={asked['state']}"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    found = FakeProvider()
    listening = socket.create_server(("127.0.0.1", 0))
    found.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(found.app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield found
    server.should_exit = True
    thread.join(PATIENCE)
    listening.close()


def test_an_identity_provider_lets_people_in_and_lies_are_refused(
    provider: FakeProvider, workspace: Path, tokenizer: Tokenizer
) -> None:
    with open_store(workspace) as store:
        register(store, workspace, "demo", make_model(workspace, tokenizer, "a1"), status="promoted")
        door = Door(Accounts(store), Provider(provider.url, "causerie", "secret"))
        server, thread = start_server(workspace, store, Script(), (sys.executable, str(IMPROVE)), door=door)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            back = provider.authorize(client.get("/api/session/oidc").headers["location"])
            assert httpx.get(back).json()["error"]["code"] == "CAU-6116", "another browser has no cookie"
            back = provider.authorize(client.get("/api/session/oidc").headers["location"])
            assert client.get(back).status_code == 303
            person = client.get("/api/session").json()["person"]
            assert (person["name"], person["role"]) == ("grace", "member")
            assert client.get(back).status_code == 502, "an answer counts once"
            for lie in ({"aud": "other"}, {"iss": "http://evil.example"}, {"nonce": "n"}, {"exp": 1}):
                provider.spoil = lie
                back = provider.authorize(client.get("/api/session/oidc").headers["location"])
                assert client.get(back).json()["error"]["code"] == "CAU-6116", lie
            provider.spoil, provider.signing = {}, RSAKey.generate_key(2048, {"kid": "k1"})
            back = provider.authorize(client.get("/api/session/oidc").headers["location"])
            assert client.get(back).json()["error"]["code"] == "CAU-6116", "signed with another key"
        assert len(store.read(select(accounts))) == 1
        server.stop()
        thread.join(PATIENCE)
