"""Every answer of every operation, every event, and every request of the tour, judged by the published specification."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from causerie.core import data_pack
from causerie.serve.routes import ApiRoute
from causerie.serve.table import TABLE
from causerie.store import Store, accounts, now, users
from causerie.text import Tokenizer
from tests.serve.conftest import Running
from tests.serve.specification import Specification, bare
from tests.serve.tour import Tour, walk

PACK = data_pack()
if PACK is None or importlib.util.find_spec("jsonschema") is None:
    pytest.skip("needs the data pack (CAUSERIE_DATA) and jsonschema", allow_module_level=True)

SPEC = Specification(PACK / "api" / "openai-openapi.json.gz")
SERVED = sorted({(route.method, bare(route.path.replace(":path", ""))) for route in TABLE} & SPEC.operations.keys())
NAMES = [f"{method} {path}" for method, path in SERVED]


BYTES = {("GET", "files/{}/content")}
"""Declared as a JSON string, and given as the file's bytes, as OpenAI does."""
PROJECT_KEYS = "organization/projects/{}/api_keys"
DEVIATIONS = {
    ("POST", "completions"): "token_logprobs[0]: None is not of type 'number'",
    ("GET", "chat/completions/{}/messages"): " is not one of ['assistant']",
    ("GET", "organization/audit_logs"): ".type: ",
    ("GET", PROJECT_KEYS): "owner.type: 'project' is not one of ['user', 'service_account']",
    ("GET", PROJECT_KEYS + "/{}"): "owner.type: 'project' is not one of ['user', 'service_account']",
}
"""Where the answer is meant to differ: nothing comes before the first token of a prompt that is echoed, so it has no
log-probability (OpenAI's own API says null too); what was said before an answer has other roles than the assistant's (the
document's examples too); acts on models and data have names that OpenAI's log has not; a key of no person and no
program is its project's."""
UNKNOWN = (
    ".finish_reason: None is not ",
    ".logprobs.refusal: None is not of type 'array'",
    ".type: 'custom' is not one of ['function']",
)
"""In events the document has no word for an answer that goes on, nor for one that is no refusal: its examples say null,
as OpenAI does; nor yet for a custom tool's call (openai-openapi issue 576): OpenAI's clients expect the one we send."""


@pytest.fixture(scope="module")
def tour(real: Running, real_store: Store, tokenizer: Tokenizer) -> Iterator[Tour]:
    """Everything that was said on the way."""
    real_store.write(
        insert(users).values(id="ada", pseudonym="ada", role="member", created=now(), erased=None),
        insert(accounts).values(user="ada", name="Ada", created=now()),
    )
    with httpx.Client(base_url=f"{real.url}/v1/", timeout=60) as http:
        yield walk(Tour(http, tokenizer.special.values()), "ada")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), SERVED, ids=NAMES)
def test_answers_are_what_the_specification_says(method: str, path: str, tour: Tour) -> None:
    """Slow: a model is fine-tuned on the way."""
    said = tour.said[method, path]
    assert said, "the tour does not go there"
    for each in said:
        place = SPEC.response(method, path, str(each.status))
        if place is not None and not each.events and (method, path) not in BYTES:
            meant = DEVIATIONS.get((method, path), "-")
            assert [fault for fault in SPEC.all_faults(place, each.body) if meant not in fault] == []


STREAMED = ("chat/completions", "completions", "responses")


@pytest.mark.slow
@pytest.mark.parametrize("path", STREAMED)
def test_events_are_what_the_specification_says(path: str, tour: Tour) -> None:
    """Slow: see above. Completions stream their plain answer's shape, as the specification says in words."""
    place = SPEC.response("POST", path, kind="text/event-stream") or SPEC.response("POST", path)
    assert place is not None
    events = [event for each in tour.said["POST", path] for event in each.events]
    assert len(events) > 3
    for event in events:
        faults = [fault for fault in SPEC.all_faults(place, event) if not any(word in fault for word in UNKNOWN)]
        assert faults == [], event


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in SERVED if SPEC.request(*key)], ids=" ".join)
def test_what_the_tour_asks_is_allowed(key: tuple[str, str], tour: Tour) -> None:
    """Slow: see above. So the answers above are answers to lawful requests."""
    place = SPEC.request(*key)
    assert place is not None
    asked = [each.asked for each in tour.said[key] if each.asked is not None]
    for body in asked:
        assert SPEC.faults(place, body) is None, body


ERROR = "#/components/schemas/ErrorResponse"


@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_errors_are_what_the_specification_says(route: ApiRoute, http: httpx.Client) -> None:
    """Of things that are not there, and of bodies that are none, for every operation."""
    path = "/v1/" + re.sub(r"\{[^}]+\}", "nothing", route.path)
    hows: list[dict[str, Any]] = [{"json": {}}, {"content": b"{"}, {"json": {"no such field": 1}}]
    for how in hows if route.method == "POST" else [{}]:
        answer = http.request(route.method, path, **how)
        if answer.is_success:
            continue
        assert 400 <= answer.status_code < 500
        assert SPEC.faults(ERROR, answer.json()) is None, answer.text
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("route", [each for each in TABLE if each.body is not None], ids=lambda route: route.path)
def test_every_body_refuses_what_nobody_knows(route: ApiRoute, http: httpx.Client) -> None:
    """A field that would be ignored in silence is named instead (where nothing else is missing before it)."""
    path = "/v1/" + re.sub(r"\{[^}]+\}", "nothing", route.path)
    answer = http.request(route.method, path, json={"no_such_field": 1})
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    if answer.status_code == 400 and error["code"] == "unknown_parameter":
        assert error["param"] == "no_such_field"
