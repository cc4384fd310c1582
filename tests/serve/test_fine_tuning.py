"""Fine-tuning through the official client: our trainer runs in a process of its own, and its model answers at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from causerie.serve import EnginePool
from tests.serve.conftest import Running
from tests.waiting import PATIENCE, wait_for

ROWS = [
    {"messages": [{"role": "user", "content": f"Dis {word}."}, {"role": "assistant", "content": word}]}
    for word in ("oui", "non", "un", "deux", "trois", "jour", "nuit", "fox")
]


@pytest.fixture
def real_client(real: Running) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        yield client


def upload(client: openai.OpenAI, rows: list[Any], purpose: str = "fine-tune") -> str:
    content = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    return client.files.create(file=("train.jsonl", content), purpose=purpose).id


def wait(client: openai.OpenAI, id: str, *ends: str) -> Any:
    wanted = ends or ("succeeded", "failed", "cancelled")
    wait_for(lambda: client.fine_tuning.jobs.retrieve(id).status in wanted, pause=0.2)
    return client.fine_tuning.jobs.retrieve(id)


@pytest.mark.slow
def test_a_model_is_fine_tuned_and_answers(real_client: openai.OpenAI) -> None:
    """Slow: the trainer is a process that loads torch, and so is the new model's engine."""
    file = upload(real_client, ROWS)
    settings = {"n_epochs": 30, "batch_size": 4, "learning_rate_multiplier": 5, "seq_len": 64}
    job = real_client.fine_tuning.jobs.create(
        model="petit",
        training_file=file,
        validation_file=upload(real_client, ROWS[:2]),
        suffix="Échos test",
        seed=3,
        metadata={"why": "test"},
        method={"type": "supervised", "supervised": {"hyperparameters": settings}},
    )
    assert job.status == "validating_files"
    assert job.fine_tuned_model is None
    job = wait(real_client, job.id)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith("ft-petit-echos-test-")
    assert job.trained_tokens > 0
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (30, 4)
    events = list(real_client.fine_tuning.jobs.list_events(job.id, limit=5))
    assert events[0].message == "The job has successfully completed"
    losses = [event.data["train_loss"] for event in reversed(events) if event.data and "train_loss" in event.data]
    assert losses[-1] < losses[0] / 2
    checkpoint, *on_the_way = real_client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuned_model_checkpoint == job.fine_tuned_model
    assert checkpoint.metrics.valid_loss is not None
    last = checkpoint.step_number
    assert [each.step_number for each in on_the_way] == [2 * -(-last // 3), -(-last // 3)]
    assert all(each.metrics.train_loss > 0 for each in on_the_way)
    check_models_on_the_way(real_client, job.fine_tuned_model, on_the_way)
    content = real_client.files.content(job.result_files[0]).text
    assert content.startswith("step,train_loss,learning_rate\n1,")
    assert [each.id for each in real_client.fine_tuning.jobs.list(metadata={"why": "test"})] == [job.id]
    assert not list(real_client.fine_tuning.jobs.list(metadata={"why": "other"}))
    assert job.fine_tuned_model in [model.id for model in real_client.models.list()]
    said = real_client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "Dis trois."}], temperature=0, max_tokens=8
    )
    assert said.choices[0].message.content.strip().startswith("tro")
    assert real_client.models.delete(job.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        real_client.models.retrieve(job.fine_tuned_model)
    with pytest.raises(openai.PermissionDeniedError):
        real_client.models.delete("petit")


def check_models_on_the_way(client: openai.OpenAI, model: str, checkpoints: list[Any]) -> None:
    """They have OpenAI's names, answer when asked, differ from each other, and can be deleted."""
    names = [each.fine_tuned_model_checkpoint for each in checkpoints]
    assert names == [f"{model}:ckpt-step-{each.step_number}" for each in checkpoints]
    assert not {each.id for each in client.models.list()} & set(names)
    asked = {"messages": [{"role": "user", "content": "Dis trois."}], "temperature": 0, "max_tokens": 2}
    worth = []
    for name in (*names, model):
        assert client.chat.completions.create(model=name, **asked).choices[0].finish_reason in ("stop", "length")
        scored = client.completions.create(model=name, prompt="Dis trois.", echo=True, logprobs=0, max_tokens=0)
        worth.append(sum(value for value in scored.choices[0].logprobs.token_logprobs if value is not None))
    assert len({round(value, 4) for value in worth}) == 3
    assert client.models.retrieve(names[0]).owned_by == "default"
    assert client.models.delete(names[0]).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=names[0], **asked)


@pytest.mark.slow
def test_a_job_is_paused_resumed_and_cancelled(real_client: openai.OpenAI) -> None:
    """Slow: the trainer is started three times."""
    file = upload(real_client, ROWS)
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1000, "batch_size": 1}}}
    job = real_client.fine_tuning.jobs.create(model="petit", training_file=file, method=method)
    first = steps_of(real_client, job.id, 3)
    paused = real_client.fine_tuning.jobs.pause(job.id)
    assert paused.status == "queued"
    assert paused.model_extra["paused"] is True
    with pytest.raises(openai.BadRequestError, match="paused"):
        real_client.fine_tuning.jobs.pause(job.id)
    assert real_client.fine_tuning.jobs.resume(job.id).status == "queued"
    assert steps_of(real_client, job.id, first + 3) > first
    assert real_client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        real_client.fine_tuning.jobs.cancel(job.id)
    steps = [event.data["step"] for event in real_client.fine_tuning.jobs.list_events(job.id) if event.data]
    assert len(steps) == len(set(steps))


def steps_of(client: openai.OpenAI, id: str, least: int) -> int:
    """The newest step that a job told, once it is `least`."""

    def newest() -> int:
        events = client.fine_tuning.jobs.list_events(id, limit=20).data
        return max((int(event.data["step"]) for event in events if event.data), default=0)

    wait_for(lambda: newest() >= least, pause=0.2)
    return newest()


@pytest.mark.slow
def test_pairs_and_graders_train_too(real_client: openai.OpenAI) -> None:
    """Slow: the trainer is started twice."""
    prompt = [{"role": "user", "content": "Dis oui."}]
    sides = {name: [{"role": "assistant", "content": text}] for name, text in (("yes", "oui"), ("no", "non"))}
    pair = {"input": {"messages": prompt}, "preferred_output": sides["yes"], "non_preferred_output": sides["no"]}
    settings = {"n_epochs": 3, "beta": 0.2, "seq_len": 64, "batch_size": 2, "learning_rate_multiplier": 20}
    job = real_client.fine_tuning.jobs.create(
        model="petit",
        training_file=upload(real_client, [pair] * 4),
        method={"type": "dpo", "dpo": {"hyperparameters": settings}},
    )
    job = wait(real_client, job.id)
    assert job.status == "succeeded", job.error
    events = [event.data for event in real_client.fine_tuning.jobs.list_events(job.id) if event.data]
    losses = {data["step"]: data["train_loss"] for data in events if "learning_rate" in data}
    checkpoints = list(real_client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [each.step_number for each in checkpoints] == [6, 4, 2]
    assert [each.metrics.train_loss for each in checkpoints] == [losses[6], losses[4], losses[2]]
    check_models_on_the_way(real_client, job.fine_tuned_model, checkpoints[1:])
    grader = {
        "type": "text_similarity",
        "name": "near",
        "input": "{{sample.output_text}}",
        "reference": "{{item.wanted}}",
        "evaluation_metric": "cosine",
    }
    rows = [{"messages": prompt, "wanted": "oui oui oui"}, {"messages": prompt, "wanted": "a b c d e"}]
    job = real_client.fine_tuning.jobs.create(
        model="petit",
        training_file=upload(real_client, rows),
        method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {"n_epochs": 1}}},
    )
    done = wait(real_client, job.id)
    assert done.status == "succeeded", done.error
    told = [event.message for event in real_client.fine_tuning.jobs.list_events(job.id)]
    assert any(message.startswith("Graded 16 answers: mean reward") for message in told)


@pytest.mark.slow
def test_an_adapter_joins_its_bases_engine(real_client: openai.OpenAI, real_pool: EnginePool) -> None:
    """Slow: the trainer is a process that loads torch."""
    settings = {"n_epochs": 2, "lora_rank": 4, "seq_len": 64}
    job = real_client.fine_tuning.jobs.create(
        model="petit",
        training_file=upload(real_client, ROWS),
        method={"type": "supervised", "supervised": {"hyperparameters": settings}},
    )
    done = wait(real_client, job.id)
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model is not None
    served = real_pool.get(done.fine_tuned_model)
    assert served.engine is real_pool.get("petit").engine
    question = [{"role": "user", "content": "Dis oui."}]
    asked = {"messages": question, "temperature": 0, "max_tokens": 4, "logprobs": True}
    rows = [
        real_client.chat.completions.create(model=model, **asked).choices[0].logprobs.content[0].logprob
        for model in ("petit", done.fine_tuned_model, "petit")
    ]
    assert rows[0] == pytest.approx(rows[2], abs=1e-5)
    assert abs(rows[0] - rows[1]) > 1e-5
    assert real_client.models.delete(done.fine_tuned_model).deleted
    assert real_client.chat.completions.create(model="petit", messages=question, max_tokens=2).choices


def test_faulty_lines_are_named(real_client: openai.OpenAI) -> None:
    answer = {"role": "assistant", "content": "x"}
    user = {"role": "user", "content": "x"}
    rows = [
        ROWS[0],
        b"{not json",
        {"messages": []},
        {"messages": [user]},
        b"\xff\xfe",
        {"messages": [user, {**answer, "weight": 0}]},
        {"messages": [{"role": "wizard", "content": "x"}, answer]},
    ]
    job = real_client.fine_tuning.jobs.create(model="petit", training_file=upload(real_client, rows))
    done = wait(real_client, job.id)
    assert done.status == "failed"
    assert (done.error.code, done.error.param) == ("invalid_training_file", "training_file")
    for part in ("line 2: not JSON", "line 3: messages", "line 4: messages: the last", "line 5: not UTF-8", "line 7: "):
        assert part in done.error.message
    assert "line 1:" not in done.error.message
    empty = real_client.fine_tuning.jobs.create(model="petit", training_file=upload(real_client, []))
    assert wait(real_client, empty.id).error.message == "the file has no rows"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "../../etc"}, "neither served nor registered"),
        ({"training_file": "file_nope"}, "training_file"),
        ({"method": {"type": "reinforcement"}}, "needs a grader"),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"hyperparameters": {"n_epochs": 2**63}}, "n_epochs"),
        ({"seed": -1}, "seed"),
        ({"suffix": ""}, "suffix"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ],
)
def test_jobs_that_cannot_be_are_refused(change: dict[str, Any], words: str, real_client: openai.OpenAI) -> None:
    asked = {"model": "petit", "training_file": upload(real_client, ROWS), **change}
    with pytest.raises(openai.BadRequestError, match=words.replace(".", r"\.")):
        real_client.fine_tuning.jobs.create(**asked)


def test_files_of_another_purpose_do_not_train(real_client: openai.OpenAI) -> None:
    file = upload(real_client, ROWS, "batch")
    with pytest.raises(openai.BadRequestError, match="purpose is batch"):
        real_client.fine_tuning.jobs.create(model="petit", training_file=file)


def test_a_job_that_waits_for_its_turn_is_turned_at_once(client: openai.OpenAI, server: Running) -> None:
    """While another one trains, which may take hours."""
    running = server.server
    assert running._loop is not None
    turn = running._app.state.office.training
    asyncio.run_coroutine_threadsafe(turn.acquire(), running._loop).result(PATIENCE)
    try:
        job = client.fine_tuning.jobs.create(model="petit", training_file=upload(client, ROWS))
        assert client.fine_tuning.jobs.pause(job.id).model_extra["paused"] is True
        assert client.fine_tuning.jobs.resume(job.id).status == "queued"
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        told = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
        assert told[:3] == ["Fine-tuning job cancelled", "Job resumed", "Fine-tuning job paused"]
        assert not running._app.state.office.workers.running(f"fine_tuning {job.id}")
    finally:
        running._loop.call_soon_threadsafe(turn.release)
