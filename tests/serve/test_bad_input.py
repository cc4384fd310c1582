"""Every kind of bad request gets an error in OpenAI's shape, never a 500."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causerie.serve import EnginePool, create_app
from causerie.serve.limits import MAX_BODY
from causerie.store import Store
from tests.serve.conftest import Running, Start, serving

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {"model": "petit", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


BODIES = {
    "empty": b"",
    "not json": b"{",
    "not an object": b"[]",
    "null": b"null",
    "text": b'"x"',
    "trailing": json.dumps(GOOD).encode() + b"}",
    "not utf-8": b'{"model": "\xff"}',
    "lone surrogate": b'{"model":"petit","messages":[{"role":"user","content":"\\ud83d"}]}',
    "nul": b'{"model":"petit","messages":[{"role":"user","content":"a\\u0000b"}]}',
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep value": b'{"model":"petit","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "nan": b'{"model":"petit","messages":[{"role":"user","content":"a"}],"temperature":NaN}',
    "infinity": b'{"model":"petit","messages":[{"role":"user","content":"a"}],"temperature":1e999}',
    "huge number": b'{"model":"petit","messages":[{"role":"user","content":"a"}],"seed":' + b"9" * 5000 + b"}",
    "gzip": b"\x1f\x8b\x08\x00",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/openai/deployments/petit/chat/completions"])
def test_bodies_that_are_not_requests(path: str, body: bytes, http: httpx.Client) -> None:
    refused(http.post(path, content=body, headers={"content-type": "application/json"}))


FIELDS: list[tuple[str, Any]] = [
    ("n", 0),
    ("n", 10**6),
    ("n", -1),
    ("n", "1"),
    ("n", 1.0),
    ("n", True),
    ("max_tokens", -1),
    ("max_tokens", 2**63),
    ("max_completion_tokens", 10**30),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "1"),
    ("top_p", -0.1),
    ("top_p", 1.5),
    ("seed", 2**63),
    ("seed", 1.5),
    ("stop", ["a"] * 5),
    ("stop", ["x" * 10**5]),
    ("stop", ""),
    ("stop", [1]),
    ("frequency_penalty", 3),
    ("logit_bias", {str(n): 1 for n in range(1000)}),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"1": 101}),
    ("messages", []),
    ("messages", "text"),
    ("messages", [{"role": "user", "content": "a"}] * 3000),
    ("messages", [{"role": "tool", "content": "a"}]),
    ("messages", [{"role": "user"}]),
    ("messages", [{"role": "user", "content": None}]),
    ("messages", [{"role": "user", "content": []}]),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
    ("messages", [{"role": "user", "content": "a" * (2**20 + 1)}]),
    ("model", ""),
    ("model", None),
    ("model", 3),
    ("model", "x" * 1000),
    ("stream", "yes"),
    ("stream_options", {"include_usage": True}),
    ("tools", [{"type": "function", "function": {"name": "f g"}}]),
    ("tools", [{"type": "custom", "custom": {"name": "f", "format": {"type": "ebnf"}}}]),
    ("response_format", {"type": "xml"}),
    ("top_logprobs", 30),
    ("store", "yes"),
    ("metadata", {str(n): "x" for n in range(17)}),
    ("audio", {"format": "wav", "voice": "x"}),
    ("web_search_options", {"search_context_size": "low"}),
    ("unknown_field", 1),
]


@pytest.mark.parametrize(("field", "value"), FIELDS, ids=[f"{f}={str(v)[:20]}" for f, v in FIELDS])
def test_fields_that_do_not_fit_are_named(field: str, value: Any, http: httpx.Client) -> None:
    error = refused(http.post(CHAT, json=GOOD | {field: value}))
    assert field in (error["param"] or error["message"])
    assert len(error["message"]) < 500


def test_fields_sent_out_of_habit_are_accepted(http: httpx.Client) -> None:
    habits = {"user": "u", "metadata": {"a": "b"}, "service_tier": "auto", "store": False, "tools": [], "n": None}
    habits |= {"response_format": {"type": "text"}, "tool_choice": "none", "parallel_tool_calls": True, "stop": None}
    assert http.post(CHAT, json=GOOD | habits).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"best_of": 2, "n": 3},
        {"best_of": 2, "stream": True},
        {"best_of": 21},
        {"suffix": "x", "prompt": [1]},
        {"logprobs": 21},
        {"prompt": ["a"] * 65},
        {"prompt": ["a"] * 33, "n": 4},
        {"prompt": ["a"] * 7, "best_of": 20},
    ]
    + [{"prompt": value} for value in ([], [[]], [1, "a"], [-1], None, {}, [2**40])],
)
def test_completions_that_cannot_be(change: dict[str, Any], http: httpx.Client) -> None:
    refused(http.post("/v1/completions", json={"model": "petit", "prompt": "a"} | change))


def test_a_body_over_the_cap_is_refused_by_its_header_and_by_its_bytes(http: httpx.Client) -> None:
    refused(http.post(CHAT, content=b" " * (MAX_BODY + 1)), 413)

    def chunks() -> Any:
        for _ in range(MAX_BODY // 65536 + 2):
            yield b" " * 65536

    refused(http.post(CHAT, content=chunks()), 413)


def test_a_body_that_breaks_off_leaves_the_server_well(server: Running, http: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", server.server.port)) as raw:
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
    assert http.post(CHAT, json=GOOD).status_code == 200


def test_a_huge_header_closes_the_connection(server: Running, http: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", server.server.port)) as raw:
        raw.settimeout(10)
        try:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n")
            answer = raw.recv(100)
        except OSError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 200")
    assert http.get("/health").status_code == 200


def test_unknown_paths_and_methods(http: httpx.Client) -> None:
    refused(http.get("/v1/nothing"), 404)
    refused(http.put(CHAT), 405)
    refused(http.get("/v1/models/petit%00"), 404)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
any_field = st.sampled_from([*GOOD, "n", "stop", "seed", "stream", "logprobs", "logit_bias", "temperature", "tools"])


@given(changes=st.dictionaries(any_field, json_values, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_json_makes_the_server_fail(changes: dict[str, Any], http: httpx.Client) -> None:
    answer = http.post(CHAT, content=json.dumps(GOOD | changes).encode("utf-8", "surrogatepass"))
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        refused(answer, answer.status_code)


def test_a_lenient_server_names_what_it_leaves_out(
    start: Start, pool: EnginePool, store: Store, folder: Path, home: Path
) -> None:
    lenient = start(create_app(pool, store=store, workspace=home, lenient=True, lifespans=[serving(pool, folder)]))
    with httpx.Client(base_url=lenient.url) as http:
        body = GOOD | {"audio": {"format": "wav"}, "unknown_field": 1, "logit_bias": {"x": 1}}
        answer = http.post(CHAT, json=body)
        assert answer.status_code == 200
        assert answer.headers["x-causerie-ignored"] == "audio, logit_bias, unknown_field"
        assert "x-causerie-ignored" not in http.post(CHAT, json=GOOD).headers
        refused(http.post(CHAT, json=body | {"n": 0}))
        refused(http.post(CHAT, json=body | {"messages": [{"role": "user", "content": "a", "extra": 1}]}))


def test_no_tokens_and_several_candidates(http: httpx.Client) -> None:
    none = http.post(CHAT, json=GOOD | {"max_tokens": 0}).json()
    assert (none["choices"][0]["message"]["content"], none["choices"][0]["finish_reason"]) == ("", "length")
    assert none["usage"]["completion_tokens"] == 0
    best = http.post("/v1/completions", json={"model": "petit", "prompt": "a", "best_of": 3, "max_tokens": 2}).json()
    assert len(best["choices"]) == 1
    assert best["usage"]["completion_tokens"] == 6
    gap = http.post("/v1/completions", json={"model": "petit", "prompt": "a", "suffix": "b", "max_tokens": 2})
    assert gap.status_code == 200
