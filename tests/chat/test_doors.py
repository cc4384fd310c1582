"""Every endpoint of the page against bodies, names and people that it must refuse."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from causerie.chat.endpoints import routes
from causerie.chat.guard import LOOPBACK, refusal

from .conftest import Served
from .test_api import ask, new_conversation, tree
from .test_signin import PASSWORD, House, house

__all__ = ["house"]

HOSTS = frozenset(LOOPBACK)
JSON = "application/json"


@pytest.mark.parametrize(
    ("method", "headers", "passes"),
    [
        ("GET", {"host": "localhost:8000"}, True),
        ("GET", {"host": "127.0.0.1"}, True),
        ("GET", {"host": "[::1]:8000"}, True),
        ("GET", {"host": "LOCALHOST"}, True),
        ("GET", {"host": "evil.example"}, False),
        ("GET", {"host": "localhost.evil.example"}, False),
        ("GET", {"host": "localhost@evil.example"}, False),
        ("GET", {"host": "[::1"}, False),
        ("GET", {"host": ""}, False),
        ("GET", {}, False),
        ("GET", {"host": "localhost", "sec-fetch-site": "cross-site"}, True),
        ("POST", {"host": "localhost", "content-length": "2", "content-type": JSON}, True),
        ("POST", {"host": "localhost", "content-length": "2", "content-type": f"{JSON}; charset=utf-8"}, True),
        ("POST", {"host": "localhost", "content-length": "2", "content-type": "application/octet-stream"}, True),
        ("POST", {"host": "localhost", "content-length": "2", "content-type": "text/plain"}, False),
        ("POST", {"host": "localhost", "content-length": "2", "content-type": "multipart/form-data"}, False),
        ("POST", {"host": "localhost", "content-length": "2"}, False),
        ("POST", {"host": "localhost", "transfer-encoding": "chunked"}, False),
        ("POST", {"host": "localhost"}, True),
        ("POST", {"host": "localhost:8000", "origin": "http://localhost:8000"}, True),
        ("POST", {"host": "localhost:8000", "origin": "http://localhost:8001"}, False),
        ("POST", {"host": "localhost:8000", "origin": "null"}, False),
        ("DELETE", {"host": "localhost", "sec-fetch-site": "same-origin"}, True),
        ("DELETE", {"host": "localhost", "sec-fetch-site": "same-site"}, False),
        ("DELETE", {"host": "localhost", "sec-fetch-site": "none"}, False),
    ],
)
def test_who_may_knock(method: str, headers: dict[str, str], passes: bool) -> None:
    assert (refusal(method, Headers(headers), HOSTS) is None) == passes


@given(host=st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40))
def test_no_host_makes_the_guard_fail(host: str) -> None:
    raw = [(b"host", host.encode("latin-1"))]
    assert refusal("GET", Headers(raw=raw), HOSTS) is None or host.lower().partition(":")[0] not in LOOPBACK


WRITING = [
    (method, route.path) for route in routes() for method in sorted(route.methods or ()) if method in ("POST", "PATCH")
]
BODILESS = ("/conversations/{conversation}/restore", "/files")
NAMES = {
    "{conversation}": "conv_x",
    "{turn}": "turn_x",
    "{signal}": "sig_x",
    "{version}": "demo@9",
    "{run}": "run-x",
    "{corpus}": "c-x",
}


def filled(path: str) -> str:
    for name, value in NAMES.items():
        path = path.replace(name, value)
    return "/api" + path


@pytest.mark.parametrize(("method", "path"), [pair for pair in WRITING if pair[1] not in BODILESS])
def test_no_body_makes_an_endpoint_fail(served: Served, method: str, path: str) -> None:
    deep = "[" * 5000 + "]" * 5000
    bodies = [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"\xff\xfe",
        b"{}" * 2,
        deep.encode(),
        b'{"a": NaN}',
        b'{"title": "\\ud800"}',
    ]
    for body in [*bodies, json.dumps({"surprise": 1}).encode(), b'{"__proto__": {}}']:
        found = served.client.request(method, filled(path), content=body, headers={"content-type": JSON})
        if found.status_code == 200 or found.status_code == 201:
            assert body in (b'{"title": "\\ud800"}',) or body == b"{}", (path, body[:20])
        else:
            assert found.status_code in (400, 404), (path, body[:20], found.text)
            assert found.json()["error"]["code"].startswith("CAU-"), path


def test_every_named_thing_that_is_not_there_is_404(served: Served) -> None:
    for route in routes():
        if "{" not in route.path:
            continue
        for method in sorted((route.methods or set()) - {"HEAD"}):
            body = {"title": "x"} if method == "PATCH" else None
            found = served.send(method, filled(route.path), body)
            assert found.status_code == 404, (method, route.path, found.text)
            assert found.headers["content-security-policy"].startswith("default-src 'self'")


def test_nothing_of_one_person_opens_for_another(house: House) -> None:
    house.accounts.create("Ada", PASSWORD, "admin")
    house.accounts.create("Grace", PASSWORD, "member")
    with house.visitor("Ada") as ada, house.visitor("Grace") as grace:
        talk = ada.post("/api/conversations", json={"title": "Mine"}).json()["id"]
        own = grace.post("/api/conversations", json={}).json()["id"]
        assert (
            ada.post("/api/chat", json={"conversation": talk, "model": "demo", "content": "Hello"}).status_code == 200
        )
        question, answer = ada.get(f"/api/conversations/{talk}").json()["messages"]
        signal = {"kind": "thumb", "id": "sig_1", "message": answer["id"], "value": "up"}
        assert ada.post("/api/feedback", json={"signal": signal}).status_code == 201
        tries: list[tuple[str, str, Any]] = [
            ("GET", f"/api/conversations/{talk}", None),
            ("GET", f"/api/conversations/{talk}/export?format=json", None),
            ("PATCH", f"/api/conversations/{talk}", {"title": "Yours"}),
            ("DELETE", f"/api/conversations/{talk}", None),
            ("POST", f"/api/conversations/{talk}/restore", None),
            ("POST", "/api/chat", {"conversation": talk, "model": "demo", "content": "Hi"}),
            ("POST", "/api/chat", {"conversation": own, "model": "demo", "content": "Hi", "parent": answer["id"]}),
            ("POST", "/api/chat", {"conversation": own, "model": "demo", "parent": question["id"]}),
            ("POST", "/api/chat", {"conversation": own, "model": "demo", "content": "Hi", "files_of": question["id"]}),
            ("POST", "/api/chat", {"conversation": own, "model": "demo", "continues": answer["id"]}),
            ("POST", "/api/feedback", {"signal": signal | {"id": "sig_2"}}),
            (
                "POST",
                "/api/feedback",
                {"signal": {"kind": "edit", "id": "sig_3", "message": answer["id"], "text": "x"}},
            ),
            ("DELETE", "/api/feedback/sig_1", None),
        ]
        for method, path, body in tries:
            found = grace.request(method, path, json=body)
            assert found.status_code == 404, (method, path, found.text)
        assert grace.delete("/api/feedback").json() == {"withdrawn": 0}
        assert ada.get(f"/api/conversations/{talk}").json()["messages"][1]["signals"][0]["value"] == "up"


def test_a_choice_needs_two_drafts_and_an_edit_an_answer(served: Served) -> None:
    talk = new_conversation(served)
    ask(served, talk, content="One?")
    question, answer = tree(served, talk)
    wrong: list[dict[str, Any]] = [
        {"kind": "choice", "id": "s1", "message": answer["id"], "value": "left"},
        {"kind": "thumb", "id": "s2", "message": question["id"], "value": "up"},
        {"kind": "edit", "id": "s3", "message": question["id"], "text": "x"},
        {"kind": "edit", "id": "s4", "message": answer["id"], "text": ""},
        {"kind": "thumb", "id": "s5", "message": answer["id"], "value": "up", "reasons": ["Not a code!"]},
        {"kind": "thumb", "id": "s6", "message": answer["id"], "value": "up", "reasons": ["correct"] * 11},
        {"kind": "thumb", "id": "s7", "message": answer["id"], "value": "up", "comment": "x" * 4001},
    ]
    for signal in wrong:
        found = served.send("POST", "/api/feedback", {"signal": signal})
        assert (found.status_code, found.json()["error"]["code"]) == (400, "CAU-6101"), signal
    assert tree(served, talk)[1]["signals"] == []


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_way_on_the_screen_is_what_is_exported(seed: int) -> None:
    from causerie.chat.exports import path_to

    chance = random.Random(seed)
    messages: list[dict[str, Any]] = [{"id": "0", "parent": None}]
    for number in range(1, chance.randrange(2, 20)):
        messages.append({"id": str(number), "parent": str(chance.randrange(number))})
    leaf = chance.choice(messages)["id"]
    way = path_to(messages, leaf)
    assert way[0]["parent"] is None
    assert way[-1]["id"] == leaf
    assert all(after["parent"] == before["id"] for before, after in pairwise(way))
