"""Reinforcement: the job's grader judges answers in the trainer's own process, and the mean reward rises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from causerie.core import CauserieError
from causerie.serve import local_judge
from causerie.serve.fine_tuning.plan import command_of, plan_of, write_inputs
from causerie.serve.fine_tuning.training_files import TrainingRows
from tests.serve.conftest import Running
from tests.serve.test_fine_tuning import check_models_on_the_way, upload, wait

CHECK = {
    "type": "string_check",
    "name": "has",
    "input": "{{sample.output_text}}",
    "operation": "ilike",
    "reference": "{{item.wanted}}",
}
NEAR = {
    "type": "text_similarity",
    "name": "near",
    "input": "{{sample.output_text}}",
    "reference": "{{item.wanted}}",
    "evaluation_metric": "fuzzy_match",
}
ASKED = {"type": "score_model", "name": "judge", "model": "petit", "input": [{"role": "user", "content": "x"}]}
MULTI = {"type": "multi", "name": "both", "graders": {"has": CHECK, "near": NEAR}, "calculate_output": "has + near / 2"}


@pytest.fixture
def real_client(real: Running) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        yield client


def reinforced(grader: dict[str, Any], **hyperparameters: Any) -> dict[str, Any]:
    return {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": hyperparameters}}


@pytest.mark.slow
def test_the_mean_reward_rises(real_client: openai.OpenAI, real_home: Path) -> None:
    """Slow: the trainer is a process that loads torch, samples, judges and learns."""
    words = ("oui", "non", "un", "deux", "trois", "jour", "nuit", "fox")
    rows = [{"messages": [{"role": "user", "content": f"Dis {word}."}], "wanted": "e"} for word in words]
    settings = {"n_epochs": 10, "learning_rate_multiplier": 60, "seq_len": 48, "batch_size": 8, "compute_multiplier": 2}
    job = real_client.fine_tuning.jobs.create(
        model="petit",
        training_file=upload(real_client, rows),
        validation_file=upload(real_client, [*rows[:2], {**rows[0], "wanted": "z"}]),
        seed=5,
        method=reinforced(CHECK, **settings),
    )
    done = wait(real_client, job.id)
    assert done.status == "succeeded", done.error
    events = list(real_client.fine_tuning.jobs.list_events(job.id))[::-1]
    rewards = [e.data["train_mean_reward"] for e in events if e.data and "train_mean_reward" in e.data]
    assert len(rewards) == 10
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    checkpoint, *on_the_way = real_client.fine_tuning.jobs.checkpoints.list(job.id)
    assert [each.metrics.model_extra["train_mean_reward"] for each in on_the_way] == [
        rewards[each.step_number - 1] for each in on_the_way
    ]
    check_models_on_the_way(real_client, done.fine_tuned_model, on_the_way)
    assert checkpoint.metrics.model_extra["train_mean_reward"] == rewards[-1]
    assert 0 <= checkpoint.metrics.model_extra["full_valid_mean_reward"] <= 1
    folder = real_home / "fine_tuning" / job.id
    assert json.loads((folder / "grader.json").read_text()) == CHECK
    assert done.fine_tuned_model in [model.id for model in real_client.models.list()]


@pytest.mark.parametrize(
    ("grader", "command"),
    [
        (CHECK, "grpo"),
        (NEAR, "grpo"),
        (MULTI, "grpo"),
        ({**NEAR, "evaluation_metric": "cosine"}, "dpo"),
        (ASKED, "dpo"),
        ({**MULTI, "graders": {"has": CHECK, "near": ASKED}}, "dpo"),
    ],
)
def test_graders_that_ask_no_model_train_by_grpo(grader: dict[str, Any], command: str) -> None:
    assert command_of(reinforced(grader)) == command
    assert command_of({"type": "supervised"}) == "sft"
    assert command_of({"type": "dpo"}) == "dpo"


@pytest.mark.parametrize("validation", [None, "file_v"])
def test_the_command_says_what_the_job_asked(validation: str | None, tmp_path: Path) -> None:
    settings = {"compute_multiplier": 0.5, "beta": 0.2, "eval_interval": 3, "eval_samples": 9, "seq_len": 100}
    method = reinforced(MULTI, **settings)
    job = {"id": "ftjob_abc", "model": "petit", "method": method, "seed": 3, "validation_file": validation}
    plan = plan_of(job, tmp_path / "base", tmp_path, 40)
    flags = dict(zip(plan.command[5:-1:2], plan.command[6:-1:2], strict=True))
    assert plan.command[3:5] == ("train", "grpo")
    assert (flags["--group-size"], flags["--batch-size"], flags["--max-tokens"]) == ("4", "16", "50")
    assert (flags["--eval-every"], flags["--measure-rows"], flags["--beta"]) == ("3", "9", "0.2")
    assert ("--heldout" in flags) is (validation is not None)
    assert plan_of(job, tmp_path / "base", tmp_path, 40) == plan
    rows = TrainingRows([{"messages": [{"role": "user", "content": "x"}], "wanted": "é"}])
    write_inputs(plan, rows, rows if validation else None, MULTI)
    (row,) = [json.loads(line) for line in Path(flags["--prompts"]).read_text().splitlines()]
    assert row == {**rows.rows[0], "prompt": rows.rows[0]["messages"]}
    assert plan.written.is_file()
    judge = local_judge(Path(flags["--grader"]))
    assert judge(row, "é") == 1.5
    assert judge(row, "zzzz") == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        json.dumps(ASKED).encode(),
        json.dumps({"type": "python", "name": "x", "source": "def grade(): return 1"}).encode(),
        json.dumps({**MULTI, "calculate_output": "has.__class__"}).encode(),
        json.dumps({**MULTI, "calculate_output": "other"}).encode(),
        json.dumps({**CHECK, "operation": "matches"}).encode(),
    ],
)
def test_files_that_hold_no_grader_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "grader.json"
    path.write_bytes(content)
    with pytest.raises(CauserieError) as caught:
        local_judge(path)
    assert caught.value.code == "CAU-6008"
    with pytest.raises(CauserieError):
        local_judge(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("template", "text", "worth"),
    [
        ("{{sample.output_text}}", "oui", 1),
        ("{{ sample.output_text }}", "oui", 1),
        ("{{sample.output_json.a.b}}", '{"a": {"b": "oui"}}', 1),
        ("{{sample.output_json.a.b}}", "no json", 0),
        ("{{sample.output_json.a.b}}", '{"a": ["b"]}', 0),
        ("{{sample}}", "oui", 0),
        ("{{item.prompt}}oui", "x", 1),
        ("{{sample.output_text", "oui", 0),
        ("{{item.__class__}}oui", "x", 1),
        ("{{}}", "oui", 0),
    ],
)
def test_templates_read_the_sample_and_nothing_else(template: str, text: str, worth: float, tmp_path: Path) -> None:
    path = tmp_path / "grader.json"
    path.write_text(json.dumps({**CHECK, "input": template, "operation": "eq", "reference": "oui"}))
    assert local_judge(path)({"prompt": "secret", "wanted": "x"}, text) == worth


def test_a_formula_without_a_value_is_told(tmp_path: Path) -> None:
    path = tmp_path / "grader.json"
    path.write_text(json.dumps({**MULTI, "calculate_output": "1 / has"}))
    judge = local_judge(path)
    assert judge({"wanted": "x"}, "x") == 1
    with pytest.raises(CauserieError, match="zero"):
        judge({"wanted": "x"}, "y")


def test_python_graders_are_refused(real_client: openai.OpenAI) -> None:
    grader = {"type": "python", "name": "x", "source": "import os"}
    with pytest.raises(openai.BadRequestError, match="executes no code"):
        real_client.fine_tuning.jobs.create(model="petit", training_file="file_x", method=reinforced(grader))
