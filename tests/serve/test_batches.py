"""Batches through the official client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from starlette.applications import Starlette

from causerie.serve import EnginePool, create_app
from causerie.store import Store
from tests.serve.conftest import ANSWER, Running, Script, Start, serving
from tests.waiting import wait_for

CHAT = "/v1/chat/completions"


def line(number: int, **change: Any) -> dict[str, Any]:
    body = {"model": "petit", "messages": [{"role": "user", "content": f"Question {number}"}], "seed": number}
    return {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body, **change}


def begin(client: openai.OpenAI, rows: list[Any], endpoint: str = CHAT, **more: Any) -> Any:
    content = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def wait(client: openai.OpenAI, id: str, *statuses: str) -> Any:
    wanted = statuses or ("completed", "failed", "expired", "cancelled")
    wait_for(lambda: client.batches.retrieve(id).status in wanted)
    return client.batches.retrieve(id)


def rows_of(client: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    return [json.loads(row) for row in client.files.content(file).text.splitlines()] if file else []


def test_a_hundred_requests_are_answered(client: openai.OpenAI) -> None:
    batch = begin(client, [line(n) for n in range(100)], metadata={"why": "test"})
    assert (batch.status, batch.object, batch.metadata) == ("validating", "batch", {"why": "test"})
    done = wait(client, batch.id)
    assert done.status == "completed"
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (100, 100, 0)
    assert done.error_file_id is None
    rows = rows_of(client, done.output_file_id)
    assert {row["custom_id"] for row in rows} == {f"r{n}" for n in range(100)}
    for row in rows:
        assert row["response"]["status_code"] == 200
        assert row["response"]["body"]["choices"][0]["message"]["content"] == ANSWER
    total = sum(row["response"]["body"]["usage"]["total_tokens"] for row in rows)
    assert done.usage.total_tokens == total
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert batch.id in [each.id for each in client.batches.list(limit=3)]


def test_requests_that_fail_are_in_the_error_file(client: openai.OpenAI) -> None:
    bad = line(1, body={"model": "autre", "messages": [{"role": "user", "content": "x"}]})
    worse = line(2, body={"model": "petit", "messages": "x"})
    done = wait(client, begin(client, [line(0), bad, worse]).id)
    assert done.status == "completed"
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 2)
    errors = {row["custom_id"]: row["response"] for row in rows_of(client, done.error_file_id)}
    assert errors["r1"]["status_code"] == 404
    assert errors["r1"]["body"]["error"]["code"] == "model_not_found"
    assert errors["r2"]["status_code"] == 400


@pytest.mark.parametrize(
    ("rows", "code", "where"),
    [
        ([line(0), b"{broken"], "invalid_json_line", 2),
        ([line(0), line(0)], "duplicate_custom_id", 2),
        ([line(0, url="/v1/completions")], "mismatched_url", 1),
        ([line(0, method="GET")], "invalid_request", 1),
        ([line(0, body={"stream": True})], "invalid_request", 1),
        ([{"custom_id": "x"}], "invalid_request", 1),
        ([b"[1]"], "invalid_request", 1),
        ([], "empty_file", None),
    ],
)
def test_faulty_files_fail_with_their_lines(
    rows: list[Any], code: str, where: int | None, client: openai.OpenAI
) -> None:
    done = wait(client, begin(client, rows).id)
    assert done.status == "failed"
    assert (done.errors.data[0].code, done.errors.data[0].line) == (code, where)


def test_other_endpoints_take_batches_too(client: openai.OpenAI) -> None:
    rows = [line(0, url="/v1/moderations", body={"input": "je vais te tuer"})]
    done = wait(client, begin(client, rows, "/v1/moderations").id)
    assert rows_of(client, done.output_file_id)[0]["response"]["body"]["results"][0]["flagged"]
    rows = [line(0, url="/v1/responses", body={"model": "petit", "input": "Ça va ?"})]
    done = wait(client, begin(client, rows, "/v1/responses").id)
    (row,) = rows_of(client, done.output_file_id)
    assert row["response"]["body"]["output"][0]["content"][0]["text"] == ANSWER
    assert done.usage.output_tokens == row["response"]["body"]["usage"]["output_tokens"]


def test_a_batch_is_cancelled(client: openai.OpenAI, script: Script) -> None:
    script.held_after = 5
    batch = begin(client, [line(n) for n in range(60)])
    wait(client, batch.id, "in_progress")
    assert client.batches.cancel(batch.id).status == "cancelling"
    script.held_after = None
    done = wait(client, batch.id)
    assert done.status == "cancelled"
    assert done.request_counts.completed < 60
    assert len(rows_of(client, done.output_file_id)) == done.request_counts.completed
    with pytest.raises(openai.NotFoundError):
        client.batches.cancel("batch_none")


def test_a_file_of_another_purpose_is_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=("x", b"x"), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="purpose batch"):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="1h")


def test_a_batch_goes_on_after_a_restart(
    pool: EnginePool, store: Store, folder: Any, home: Any, start: Start, script: Script
) -> None:
    def app() -> Starlette:
        from tests.serve.conftest import ScriptedEngine

        engines = EnginePool(lambda place: ScriptedEngine(place, script, pool_tokenizer))
        return create_app(engines, store=store, workspace=home, lifespans=[serving(engines, folder)])

    from causerie.text import load_tokenizer

    pool_tokenizer = load_tokenizer(folder)
    script.held_after = 5
    first: Running = start(app())
    with openai.OpenAI(base_url=f"{first.url}/v1", api_key="x", max_retries=0) as client:
        batch = begin(client, [line(n) for n in range(40)])
        wait_for(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)
    first.stop()
    script.held_after = None
    asked_before = len(script.asked)
    second = start(app())
    with openai.OpenAI(base_url=f"{second.url}/v1", api_key="x", max_retries=0) as client:
        done = wait(client, batch.id)
        rows = rows_of(client, done.output_file_id)
    assert done.status == "completed"
    assert sorted(row["custom_id"] for row in rows) == sorted(f"r{n}" for n in range(40))
    assert len(script.asked) - asked_before < 40
