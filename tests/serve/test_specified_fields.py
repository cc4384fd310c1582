"""Field by field: every value that the specification allows a field is taken, or is one of those refused on purpose."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from causerie.core import data_pack
from causerie.serve.table import TABLE
from tests.serve.conftest import Running, Script
from tests.serve.specification import Specification, bare

PACK = data_pack()
if PACK is None or importlib.util.find_spec("jsonschema") is None:
    pytest.skip("needs the data pack (CAUSERIE_DATA) and jsonschema", allow_module_level=True)

SPEC = Specification(PACK / "api" / "openai-openapi.json.gz")
COVERAGE = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "api_coverage.py"))
CHECK = {"type": "string_check", "name": "n", "input": "a", "operation": "eq", "reference": "a"}
LEAST: dict[str, dict[str, Any]] = {
    "chat/completions": {"model": "petit", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "completions": {"model": "petit", "prompt": "a", "max_tokens": 1},
    "responses": {"model": "petit", "input": "a", "max_output_tokens": 16},
    "responses/input_tokens": {"model": "petit", "input": "a"},
    "responses/compact": {"model": "petit", "input": "a"},
    "conversations": {},
    "embeddings": {"model": "petit", "input": "a"},
    "moderations": {"input": "a"},
    "evals": {"data_source_config": {"type": "custom", "item_schema": {}}, "testing_criteria": [CHECK]},
    "vector_stores": {},
    "uploads": {"bytes": 1, "filename": "x", "mime_type": "text/plain", "purpose": "assistants"},
    "fine_tuning/jobs": {"model": "petit", "training_file": "FILE"},
    "fine_tuning/alpha/graders/run": {"grader": CHECK, "model_sample": "x"},
    "fine_tuning/alpha/graders/validate": {"grader": CHECK},
}
"""The least body of each operation that makes or says something."""
MOST = 40
"""Values tried of one field."""


def cases() -> Iterator[tuple[str, str]]:
    """Operation and field, of those that docs/api-coverage.md counts as taken."""
    for route in TABLE:
        if route.path in LEAST and route.method == "POST":
            body = SPEC.at(str(SPEC.request("POST", bare(route.path))))
            for name in sorted((COVERAGE["accepted"](route) & SPEC.fields(body).keys()) - {"model"}):
                yield route.path, name


REFUSED = (
    ("messages", r'^\[{"role": "assistant"}\]$', "a message that says nothing"),
    ("modalities", "audio", "media"),
    ("seed", "9223372036854776000", "the document's rounding of 2 to the 63rd is beyond it"),
    ("stream_options", "{}", "goes with a stream only"),
    ("top_logprobs", "20", "goes with logprobs only"),
    ("tool_choice", "required|function|custom|allowed_tools", "goes with tools only"),
    ("function_call", "name", "goes with functions only"),
    ("tool_choice", r'"type": "(?!function|custom|allowed_tools)', "hosted tools"),
    ("tools", r'"type": "(?!function|custom)', "hosted tools"),
    (
        "input|items",
        r'"type": "(?!message|function_call|custom_tool_call|reasoning)',
        "items of hosted tools; nothing of that kind here",
    ),
    ("input|items|conversation", r'"id": "x"', "there is no such object"),
    ("conversation|.*_id|file_ids|.*_file", r'"x"', "there is no such object"),
    ("method", r'^{"type": "reinforcement"}$', "needs a grader"),
    ("grader|testing_criteria", r'"meteor"|"python"', "not computed here; no code of callers is run"),
)
"""Field, value, reason: allowed by the document, and refused on purpose."""


def reason(field: str, value: Any) -> str | None:
    """Why a value is refused."""
    text = json.dumps(value)
    found = (why for name, pattern, why in REFUSED if re.fullmatch(name, field) and re.search(pattern, text))
    return next(found, None)


@pytest.fixture(scope="module")
def ids(server: Running) -> dict[str, str]:
    """A file that stands for every file."""
    with httpx.Client(base_url=server.url) as http:
        form = {"files": {"file": ("x.jsonl", b"not a row")}, "data": {"purpose": "fine-tune"}}
        return {"FILE": http.post("/v1/files", **form).json()["id"]}


@pytest.mark.parametrize(("path", "field"), list(cases()))
def test_what_is_allowed_is_taken(
    path: str, field: str, http: httpx.Client, ids: dict[str, str], script: Script
) -> None:
    script.max_seq_len = 4_096
    schema = SPEC.fields(SPEC.at(str(SPEC.request("POST", path))))[field]
    least = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in LEAST[path].items()}
    values = list(itertools.islice(SPEC.values(schema), MOST))
    assert values
    for value in values:
        answer = http.post(f"/v1/{path}", json=least | {field: value})
        if answer.status_code not in (200, 201):
            assert answer.status_code in (400, 404)
            assert reason(field, value), (value, answer.text)


def test_what_is_refused_is_named_where_it_stands(http: httpx.Client) -> None:
    """Of a union's branches it is the one that fits the furthest that is told of."""
    item = {"type": "apply_patch_call_output", "call_id": "x", "status": "completed"}
    told = {}
    for path, field in (("responses", "input"), ("conversations", "items")):
        error = http.post(f"/v1/{path}", json=LEAST[path] | {field: [item]}).json()["error"]
        assert error["param"] == f"{field}[0]"
        told[path] = error["message"]
        assert "'apply_patch_call_output'" in error["message"]
        assert "'function_call_output'" in error["message"]
        assert "_kind" not in error["message"]


def test_a_reference_needs_no_type(http: httpx.Client) -> None:
    """An item with nothing but an id names one that was said before."""
    said = http.post("/v1/responses", json=LEAST["responses"]).json()
    body = LEAST["responses"] | {"previous_response_id": said["id"]}
    for item in ({"id": said["output"][0]["id"]}, {"id": said["output"][0]["id"], "type": None}):
        assert http.post("/v1/responses", json=body | {"input": [item]}).status_code == 200
    missing = http.post("/v1/responses", json=body | {"input": [{"id": "x"}]})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
