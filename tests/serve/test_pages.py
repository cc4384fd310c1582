"""Lists in pages, over every list route of stored objects: order, limits, cursors that lead nowhere."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from causerie.serve.table import TABLE
from tests.serve.conftest import Running

COUNT = 5
CHECK = {"type": "string_check", "name": "e", "input": "a", "operation": "eq", "reference": "a"}
CONTENT = [{"item": {"n": n}, "sample": {"output_text": "a"}} for n in range(COUNT)]


def _files(http: httpx.Client, count: int = COUNT, purpose: str = "assistants") -> list[str]:
    texts = [("x.txt", f"mot {n}".encode()) for n in range(count)]
    made = [http.post("/v1/files", files={"file": text}, data={"purpose": purpose}) for text in texts]
    return [answer.json()["id"] for answer in made]


def _post(http: httpx.Client, path: str, body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def lists(server: Running) -> dict[str, str]:
    """Paths of lists by their route, each with five objects at least."""
    with httpx.Client(base_url=server.url, timeout=30) as http:
        files = _files(http)
        batch_input = _files(http, 1, "batch")[0]
        for _ in range(COUNT):
            asked = {"input_file_id": batch_input, "endpoint": "/v1/embeddings", "completion_window": "24h"}
            _post(http, "/v1/batches", asked)
            _post(http, "/v1/vector_stores", {})
            message = [{"role": "user", "content": "x"}]
            _post(http, "/v1/chat/completions", {"model": "petit", "messages": message, "store": True})
            config = {"type": "custom", "item_schema": {}}
            spec = _post(http, "/v1/evals", {"data_source_config": config, "testing_criteria": [CHECK]})
        jsonl = {"type": "jsonl", "source": {"type": "file_content", "content": CONTENT}}
        for _ in range(COUNT):
            run = _post(http, f"/v1/evals/{spec['id']}/runs", {"data_source": jsonl})
        store = _post(http, "/v1/vector_stores", {"file_ids": files})
        batch = _post(
            http, f"/v1/vector_stores/{_post(http, '/v1/vector_stores', {})['id']}/file_batches", {"file_ids": files}
        )
        items = [{"type": "message", "role": "user", "content": f"{n}"} for n in range(COUNT)]
        talk = _post(http, "/v1/conversations", {"items": items})
        answer = _post(http, "/v1/responses", {"model": "petit", "input": items})
        turns = [{"role": "user", "content": f"{n}"} for n in range(COUNT)]
        kept = _post(http, "/v1/chat/completions", {"model": "petit", "messages": turns, "store": True})
        for _ in range(200):
            run = http.get(f"/v1/evals/{spec['id']}/runs/{run['id']}").json()
            if run["status"] == "completed":
                break
        training = http.post("/v1/files", files={"file": ("t.jsonl", b"{}\n")}, data={"purpose": "fine-tune"}).json()[
            "id"
        ]
        for _ in range(COUNT):
            job = _post(http, "/v1/fine_tuning/jobs", {"model": "petit", "training_file": training})
        return {
            "files": "/v1/files",
            "batches": "/v1/batches",
            "vector_stores": "/v1/vector_stores",
            "chat/completions": "/v1/chat/completions",
            "chat/completions/{completion_id}/messages": f"/v1/chat/completions/{kept['id']}/messages",
            "evals": "/v1/evals",
            "evals/{eval_id}/runs": f"/v1/evals/{spec['id']}/runs",
            "evals/{eval_id}/runs/{run_id}/output_items": f"/v1/evals/{spec['id']}/runs/{run['id']}/output_items",
            "vector_stores/{vector_store_id}/files": f"/v1/vector_stores/{store['id']}/files",
            "vector_stores/{vector_store_id}/file_batches/{batch_id}/files": (
                f"/v1/vector_stores/{batch['vector_store_id']}/file_batches/{batch['id']}/files"
            ),
            "conversations/{conversation_id}/items": f"/v1/conversations/{talk['id']}/items",
            "responses/{response_id}/input_items": f"/v1/responses/{answer['id']}/input_items",
            "fine_tuning/jobs": "/v1/fine_tuning/jobs",
            "fine_tuning/jobs/{job_id}/events": f"/v1/fine_tuning/jobs/{job['id']}/events",
        }


ROUTES = (
    "files",
    "batches",
    "vector_stores",
    "chat/completions",
    "chat/completions/{completion_id}/messages",
    "evals",
    "evals/{eval_id}/runs",
    "evals/{eval_id}/runs/{run_id}/output_items",
    "vector_stores/{vector_store_id}/files",
    "vector_stores/{vector_store_id}/file_batches/{batch_id}/files",
    "conversations/{conversation_id}/items",
    "responses/{response_id}/input_items",
    "fine_tuning/jobs",
    "fine_tuning/jobs/{job_id}/events",
)
ELSEWHERE = {"fine_tuning/jobs/{job_id}/checkpoints", "fine_tuning/checkpoints/{checkpoint}/permissions", "models"}
"""Lists with tests of their own; models come in one piece."""


def test_no_list_is_forgotten() -> None:
    ends = {route.path for route in TABLE if route.method == "GET" and not route.path.startswith("organization")}
    plural = {path for path in ends if not re.search(r"\}$|/content$|:path\}$", path)}
    assert plural - ELSEWHERE == set(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_a_list_is_walked_in_both_orders(route: str, lists: dict[str, str], http: httpx.Client) -> None:
    path = lists[route]

    def ids(**query: Any) -> list[str]:
        answer = http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found = [row["id"] for row in body["data"]]
        assert body["object"] == "list"
        assert (body["first_id"] or None, body["last_id"] or None) == ((found[0], found[-1]) if found else (None, None))
        return found

    if route.endswith("/events"):
        rising = ids(limit=100, order="asc")
        assert len(rising) >= 2
    else:
        rising = ids(limit=100, order="asc")
        assert len(rising) >= COUNT
    assert len(set(rising)) == len(rising)
    assert ids(limit=100, order="desc") == rising[::-1]
    walked: list[str] = []
    for _ in range(len(rising) + 1):
        page = http.get(path, params={"limit": 2, "order": "asc"} | ({"after": walked[-1]} if walked else {})).json()
        walked += [row["id"] for row in page["data"]]
        assert page["has_more"] is (len(walked) < len(rising))
        if not page["has_more"]:
            break
    assert walked == rising
    assert ids(limit=100, order="asc", before=rising[2 % len(rising)]) == rising[: 2 % len(rising)]
    assert ids(limit=100, order="desc", after=rising[1]) == [rising[0]]
    assert ids(after=rising[-1], order="asc") == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("after=nothing_of_this_name", 404),
        ("before=nothing_of_this_name", 404),
        ("after=%00", 200),
        ("limit=-1", 400),
        ("limit=1.5", 400),
        ("limit=99999999999999999999", 400),
        ("limit=10001", 400),
        ("limit=%D9%A3", 400),
        ("order=upwards", 400),
        ("limit=0", 200),
        ("limit=1", 200),
    ],
)
def test_queries_of_lists(query: str, status: int, route: str, lists: dict[str, str], http: httpx.Client) -> None:
    answer = http.get(f"{lists[route]}?{query}")
    assert answer.status_code == status, answer.text
    if status >= 400:
        assert answer.json()["error"]["message"]
    elif "limit" in query:
        assert len(answer.json()["data"]) == int(query[-1])


@pytest.mark.parametrize("route", [each for each in ROUTES if "{" in each])
def test_lists_of_what_is_not_there(route: str, lists: dict[str, str], http: httpx.Client) -> None:
    path = re.sub(r"\{\w+\}", "nothing", route)
    assert http.get(f"/v1/{path}").status_code == 404
    assert json.loads(http.get(f"/v1/{path}").text)["error"]["code"] == "not_found"
