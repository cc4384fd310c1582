"""Long work when the server ends in its middle, expires, or is stopped: it goes on, or its status says what happened."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from causerie.core import read_events
from causerie.serve import EnginePool, create_app, create_key
from causerie.serve.batches import running as batches
from causerie.serve.objects import Objects
from causerie.store import Store
from causerie.text import Tokenizer
from tests.serve.conftest import Running, Script, ScriptedEngine, Start, serving
from tests.serve.test_batches import begin as begin_batch
from tests.serve.test_batches import line, rows_of
from tests.serve.test_batches import wait as wait_batch
from tests.serve.test_fine_tuning import ROWS, steps_of, upload
from tests.serve.test_fine_tuning import wait as wait_job
from tests.waiting import wait_for as until

EQUAL = {
    "type": "string_check",
    "name": "equal",
    "input": "{{sample.output_text}}",
    "operation": "ne",
    "reference": "{{item.q}}",
}


@pytest.fixture
def again(store: Store, home: Path, folder: Path, script: Script, tokenizer: Tokenizer, start: Start):
    """Start the server anew on the same store and workspace."""

    def go() -> tuple[Running, openai.OpenAI]:
        pool = EnginePool(lambda place: ScriptedEngine(place, script, tokenizer))
        server = start(create_app(pool, store=store, workspace=home, lifespans=[serving(pool, folder)]))
        return server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)

    return go


def make_run(client: openai.OpenAI, rows: list[dict[str, Any]]) -> tuple[str, str]:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    config = {"type": "custom", "item_schema": schema, "include_sample_schema": True}
    spec = client.evals.create(name="e", data_source_config=config, testing_criteria=[EQUAL])
    source = {
        "type": "completions",
        "model": "petit",
        "source": {"type": "file_content", "content": [{"item": row} for row in rows]},
        "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.q}}"}]},
        "sampling_params": {"max_completion_tokens": 20},
    }
    return spec.id, client.evals.runs.create(spec.id, data_source=source).id


def test_an_eval_run_goes_on_after_a_restart(again: Any, script: Script) -> None:
    script.delay = 0.01
    first, client = again()
    eval_id, run_id = make_run(client, [{"q": f"Question {n}"} for n in range(24)])
    items = client.evals.runs.output_items
    until(lambda: len(items.list(run_id, eval_id=eval_id, limit=100).data) >= 3)
    first.stop()
    asked = len(script.asked)
    script.delay = 0.0
    _, client = again()
    until(lambda: client.evals.runs.retrieve(run_id, eval_id=eval_id).status == "completed")
    run = client.evals.runs.retrieve(run_id, eval_id=eval_id)
    rows = client.evals.runs.output_items.list(run_id, eval_id=eval_id, limit=100).data
    assert sorted(row.datasource_item_id for row in rows) == list(range(24))
    assert (run.result_counts.total, run.result_counts.passed, run.result_counts.errored) == (24, 24, 0)
    assert len(script.asked) - asked <= 24 - 3


def test_a_run_whose_items_cannot_be_kept_has_failed(client: openai.OpenAI, http: httpx.Client) -> None:
    """A lone surrogate is JSON and no text; the run must not stay under way for ever."""
    lines = b'{"item": {"q": "\\ud800"}, "sample": {"output_text": "x"}}\n'
    file = client.files.create(file=("x.jsonl", lines), purpose="evals")
    config = {"type": "custom", "item_schema": {"type": "object"}}
    spec = client.evals.create(name="e", data_source_config=config, testing_criteria=[EQUAL])
    source = {"type": "jsonl", "source": {"type": "file_id", "id": file.id}}
    run = client.evals.runs.create(spec.id, data_source=source)
    until(lambda: client.evals.runs.retrieve(run.id, eval_id=spec.id).status == "failed")
    assert client.evals.runs.retrieve(run.id, eval_id=spec.id).error.message


def test_nobody_else_can_stop_a_run(server: Running, store: Store, script: Script) -> None:
    script.delay = 0.01
    keys = [create_key(store, name, project=name, scopes=("*",))[1] for name in ("runner", "stranger")]
    mine, theirs = (openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) for key in keys)
    eval_id, run_id = make_run(mine, [{"q": f"Q {n}"} for n in range(12)])
    for attempt in (theirs.evals.runs.delete, theirs.evals.runs.cancel):
        with pytest.raises(openai.NotFoundError):
            attempt(run_id, eval_id=eval_id)
    script.delay = 0.0
    until(lambda: mine.evals.runs.retrieve(run_id, eval_id=eval_id).status == "completed")
    mine.close()
    theirs.close()


def test_a_deleted_run_asks_nothing_more(client: openai.OpenAI, script: Script) -> None:
    script.held_after = 2
    eval_id, run_id = make_run(client, [{"q": f"Q {n}"} for n in range(40)])
    until(lambda: len(script.asked) >= 3)
    client.evals.runs.delete(run_id, eval_id=eval_id)
    asked, script.held_after = len(script.asked), None
    time.sleep(0.3)
    assert len(script.asked) <= asked + 4
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.output_items.list(run_id, eval_id=eval_id)


def test_a_batch_begun_too_late_is_expired(again: Any, script: Script, store: Store) -> None:
    script.held_after = 5
    first, client = again()
    batch = begin_batch(client, [line(n) for n in range(40)])
    until(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)
    first.stop()
    open_ones = asyncio.run(Objects(store).unfinished(batches.KIND, batches.OPEN))
    owner = next(owner for owner, _, body in open_ones if body["id"] == batch.id)
    asyncio.run(Objects(store).set(batches.KIND, owner, batch.id, expires_at=int(time.time()) - 1))
    script.held_after = None
    asked = len(script.asked)
    _, client = again()
    done = wait_batch(client, batch.id)
    assert (done.status, len(script.asked)) == ("expired", asked)
    assert done.expired_at is not None
    counts = done.request_counts
    assert counts.completed + counts.failed == counts.total == 40
    late = rows_of(client, done.error_file_id)
    assert len(late) == counts.failed > 0
    assert {row["error"]["code"] for row in late} == {"batch_expired"}
    assert all(row["response"] is None for row in late)
    assert len(rows_of(client, done.output_file_id)) == counts.completed > 0
    assert {r["custom_id"] for r in late + rows_of(client, done.output_file_id)} == {f"r{n}" for n in range(40)}


def test_a_batch_that_waits_for_a_full_server_can_be_cancelled(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests are refused again and again; nothing but the cancellation ends that."""
    from causerie.serve.errors import ApiError

    tried = []

    async def full(*_: Any) -> Any:
        tried.append(1)
        raise ApiError(503, "full", code="overloaded")

    monkeypatch.setitem(batches.ANSWERS, "/v1/chat/completions", full)  # type: ignore[arg-type]
    batch = begin_batch(client, [line(n) for n in range(3)])
    until(lambda: len(tried) >= 3)
    client.batches.cancel(batch.id)
    done = wait_batch(client, batch.id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("cancelled", 0, 0)
    assert done.output_file_id is None
    assert done.error_file_id is None


def test_a_background_response_of_an_ended_server_has_failed(again: Any, script: Script) -> None:
    script.delay, script.endless = 0.05, True
    first, client = again()
    answer = client.responses.create(model="petit", input="x", background=True)
    until(lambda: client.responses.retrieve(answer.id).status in ("queued", "in_progress"))
    first.stop()
    script.endless = False
    _, client = again()
    found = client.responses.retrieve(answer.id)
    assert (found.status, found.error.code) == ("failed", "server_error")


def as_made_by_other_code(run: Path, damaged: bool) -> None:
    """A run as an earlier version left it: its folder has another key; perhaps its checkpoints cannot be read."""
    for number, made in enumerate(run.glob("checkpoints/*/tensors.safetensors")):
        if damaged:
            made.write_bytes(b"%d" % number)
    run.rename(run.with_name(run.name[:-8] + "0" * 8))


@pytest.mark.slow
@pytest.mark.parametrize("upgrade", ["none", "code", "checkpoints too"])
def test_a_fine_tuning_job_goes_on_after_a_restart(
    upgrade: str, model_folder: Path, real_store: Store, real_home: Path, start: Start
) -> None:
    """Slow: two servers with real engines, and the trainer is started twice."""
    from causerie.infer import EngineConfig

    def go() -> tuple[Running, openai.OpenAI]:
        pool = EnginePool(config=EngineConfig(threads=1, cache_mb=16))
        server = start(create_app(pool, store=real_store, workspace=real_home, lifespans=[serving(pool, model_folder)]))
        return server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=120)

    first, client = go()
    settings = {"n_epochs": 60, "batch_size": 2, "seq_len": 64}
    method = {"type": "supervised", "supervised": {"hyperparameters": settings}}
    job = client.fine_tuning.jobs.create(model="petit", training_file=upload(client, ROWS), method=method)
    seen = steps_of(client, job.id, 3)
    first.stop()
    runs = real_home / "runs"
    (run,) = runs.glob(f"sft-ft-{job.id.rpartition('_')[2]}-*")
    if upgrade != "none":
        as_made_by_other_code(run, damaged=upgrade != "code")
    _, client = go()
    done = wait_job(client, job.id)
    assert done.status == "succeeded", done.error
    resumed = [event["step"] for event in read_events(run) if event["event"] == "resume"]
    anew = [e for e in client.fine_tuning.jobs.list_events(job.id) if "begins anew" in e.message]
    assert (len(resumed), len(anew)) == ((0, 1) if upgrade == "checkpoints too" else (1, 0))
    assert all(step > 0 for step in resumed)
    if anew:
        assert anew[0].level == "warn"
        assert "no valid checkpoint" in anew[0].message
    steps = [e.data["step"] for e in client.fine_tuning.jobs.list_events(job.id) if e.data and "train_loss" in e.data]
    checkpoint, *_ = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert max(steps) == checkpoint.step_number > seen
    told = client.files.content(done.result_files[0]).text.splitlines()
    assert told[-1].startswith(f"{max(steps)},")
    lines = (real_home / "fine_tuning" / job.id / "train.jsonl").read_text().splitlines()
    assert [json.loads(each)["messages"] for each in lines] == [row["messages"] for row in ROWS]
