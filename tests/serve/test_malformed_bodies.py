"""Every operation that takes a body, with every kind of body it cannot take: refused in OpenAI's shape, never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from causerie.serve.openapi import openapi_document
from causerie.serve.routes import ApiRoute
from causerie.serve.table import TABLE
from tests.serve.conftest import Running
from tests.serve.test_bad_input import BODIES
from tests.serve.test_every_route import filled

ROUTES = [route for route in TABLE if route.body is not None]
NAMES = [f"{route.method} {route.path}" for route in ROUTES]
DOCUMENT = openapi_document(TABLE)
SCHEMAS = DOCUMENT["components"]["schemas"]
NO_JSON = [name for name in BODIES if name not in ("empty", "nul", "lone surrogate", "nan", "infinity", "huge number")]
"""Bodies that no operation can take; the others are chat requests with one fault."""


@pytest.fixture(scope="module")
def ids(server: Running) -> dict[str, str]:
    """Objects that are there, so that bodies are looked at and not only ids."""
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        file = client.files.create(file=("x.txt", b"bonjour"), purpose="assistants")
        store = client.vector_stores.create(file_ids=[file.id])
        talk = client.conversations.create()
        message = [{"role": "user", "content": "a"}]
        kept = client.chat.completions.create(model="petit", messages=message, max_tokens=2, store=True)  # type: ignore[call-overload]
        upload = client.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="assistants")
        config = {"type": "custom", "item_schema": {"type": "object"}}
        check = {"type": "string_check", "name": "x", "operation": "eq", "input": "a", "reference": "b"}
        measure = client.evals.create(data_source_config=config, testing_criteria=[check])  # type: ignore[arg-type,list-item]
    return {
        "file_id": file.id,
        "vector_store_id": store.id,
        "conversation_id": talk.id,
        "completion_id": kept.id,
        "upload_id": upload.id,
        "eval_id": measure.id,
        "project_id": "default",
    }


def send(http: httpx.Client, route: ApiRoute, ids: dict[str, str], content: bytes) -> httpx.Response:
    """A body to an operation."""
    path = f"/v1/{filled(route.path, ids)}"
    return http.request(route.method, path, content=content, headers={"content-type": "application/json"})


def check_refusal(answer: httpx.Response, *statuses: int) -> None:
    """An error of OpenAI's shape, that says something and does not repeat the request."""
    assert answer.status_code in (statuses or (400, 404)), answer.text[:500]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 1_000
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_what_is_no_json_object_is_refused(route: ApiRoute, http: httpx.Client, ids: dict[str, str]) -> None:
    for name in NO_JSON:
        answer = send(http, route, ids, BODIES[name])
        assert answer.status_code in (400, 404), (name, answer.status_code, answer.text[:300])
        check_refusal(answer)


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_unknown_fields_are_named(route: ApiRoute, http: httpx.Client, ids: dict[str, str]) -> None:
    """A field that nobody reads is a mistake of the caller's that they would want to hear of."""
    body = least(route) | {"colour_of_the_sky": "blue"}
    answer = send(http, route, ids, json.dumps(body).encode())
    check_refusal(answer)
    if answer.status_code == 400 and answer.json()["error"]["code"] == "unknown_parameter":
        assert "colour_of_the_sky" in answer.json()["error"]["message"]


@pytest.mark.parametrize("route", [route for route in ROUTES if SCHEMAS.get(route.body.__name__, {}).get("required")])
def test_missing_fields_are_named(route: ApiRoute, http: httpx.Client, ids: dict[str, str]) -> None:
    for name in SCHEMAS[route.body.__name__]["required"]:
        body = {key: value for key, value in least(route).items() if key != name}
        answer = send(http, route, ids, json.dumps(body).encode())
        check_refusal(answer)


WRONG: tuple[Any, ...] = (None, True, -1, 2**63, 1e308, "", "x" * 5_000, [], ["\u202e"], {}, {"": {}}, [[[[]]]])


def fields_of(route: ApiRoute) -> Iterator[str]:
    """The names of an operation's fields as requests spell them."""
    for name, field in route.body.model_fields.items():
        alias = field.validation_alias
        yield alias.choices[0] if hasattr(alias, "choices") else alias or name  # type: ignore[misc]


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_no_value_of_any_field_breaks_an_operation(route: ApiRoute, http: httpx.Client, ids: dict[str, str]) -> None:
    """Each field with values of every type: taken or refused, never a failure of the server."""
    for name in fields_of(route):
        for value in WRONG:
            answer = send(http, route, ids, json.dumps(least(route) | {name: value}).encode())
            assert answer.status_code < 500, (name, str(value)[:40], answer.status_code, answer.text[:300])
            if answer.status_code >= 400:
                check_refusal(answer, 400, 403, 404, 409, 413)


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_a_text_that_no_database_holds_is_refused(route: ApiRoute, http: httpx.Client, ids: dict[str, str]) -> None:
    """U+0000 and lone surrogates, wherever a text goes."""
    for name in fields_of(route):
        for text in (r"a\u0000b", r"\ud800"):
            body = json.dumps(least(route) | {name: "PLACE"}).replace('"PLACE"', f'"{text}"')
            answer = send(http, route, ids, body.encode())
            assert answer.status_code < 500, (name, text, answer.text[:300])


@pytest.mark.parametrize("route", [route for route in TABLE if route.method != "GET" and route.body is None])
def test_operations_without_a_body_pass_over_one(route: ApiRoute, http: httpx.Client) -> None:
    """None of them fails because somebody sent one."""
    for body in (b"{", b"null", b"[" * 10_000):
        answer = http.request(route.method, f"/v1/{filled(route.path, {})}", content=body)
        assert answer.status_code in (200, 400, 403, 404), answer.text[:300]


def least(route: ApiRoute) -> dict[str, Any]:
    """A small body of the right shape for an operation."""
    message = {"type": "message", "role": "user", "content": "a"}
    check = {"type": "string_check", "name": "x", "operation": "eq", "input": "a", "reference": "b"}
    rows = {"type": "file_content", "content": [{"item": {"a": 1}}]}
    known: dict[str, dict[str, Any]] = {
        "chat/completions": {"model": "petit", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
        "completions": {"model": "petit", "prompt": "a", "max_tokens": 1},
        "embeddings": {"model": "petit", "input": "a"},
        "uploads": {"bytes": 3, "filename": "a", "mime_type": "text/plain", "purpose": "assistants"},
        "uploads/{upload_id}/complete": {"part_ids": ["part_x"]},
        "fine_tuning/jobs": {"model": "petit", "training_file": "file_x"},
        "fine_tuning/alpha/graders/run": {"grader": check, "model_sample": "a"},
        "fine_tuning/alpha/graders/validate": {"grader": check},
        "fine_tuning/checkpoints/{checkpoint}/permissions": {"project_ids": ["x"]},
        "batches": {"input_file_id": "file_x", "endpoint": "/v1/embeddings", "completion_window": "24h"},
        "responses": {"model": "petit", "input": "a", "max_output_tokens": 16},
        "responses/input_tokens": {"model": "petit", "input": "a"},
        "responses/compact": {"model": "petit", "input": "a"},
        "conversations/{conversation_id}": {"metadata": {}},
        "chat/completions/{completion_id}": {"metadata": {}},
        "conversations/{conversation_id}/items": {"items": [message]},
        "moderations": {"input": "a"},
        "evals": {"data_source_config": {"type": "custom", "item_schema": {}}, "testing_criteria": [check]},
        "evals/{eval_id}/runs": {"data_source": {"type": "jsonl", "source": rows}},
        "vector_stores/{vector_store_id}/search": {"query": "a"},
        "vector_stores/{vector_store_id}/files": {"file_id": "file_x"},
        "vector_stores/{vector_store_id}/files/{file_id}": {"attributes": {}},
        "vector_stores/{vector_store_id}/file_batches": {"file_ids": ["file_x"]},
        "organization/projects": {"name": "a"},
        "organization/users/{user_id}": {"role": "reader"},
        "organization/projects/{project_id}/users": {"user_id": "x", "role": "member"},
        "organization/projects/{project_id}/users/{user_id}": {"role": "member"},
        "organization/projects/{project_id}/api_keys": {"name": "a"},
        "organization/projects/{project_id}/api_keys/{key_id}": {"name": "a"},
        "organization/projects/{project_id}/service_accounts": {"name": "a"},
        "organization/admin_api_keys": {"name": "a"},
        "organization/prices": {"model": "petit", "currency": "eur", "input": 1.0, "output": 1.0},
    }
    return known.get(route.path, {})


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_the_smallest_bodies_here_have_the_right_shape(route: ApiRoute) -> None:
    """Else the tests above would only see the same refusal again and again."""
    route.body.model_validate_json(json.dumps(least(route)))
