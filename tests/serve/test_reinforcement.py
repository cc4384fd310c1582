"""Reinforcement: the job's grader judges answers in the trainer's own process, and the mean reward rises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.conftest import Running
from tests.serve.test_fine_tuning import upload, wait

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
    settings = {"n_epochs": 12, "learning_rate_multiplier": 60, "seq_len": 48, "batch_size": 8, "compute_multiplier": 2}
    job = real_client.fine_tuning.jobs.create(
        model="petit",
        training_file=upload(real_client, rows),
        validation_file=upload(real_client, rows[:2] + [{**rows[0], "wanted": "z"}]),
        seed=5,
        method=reinforced(CHECK, **settings),
    )
    done = wait(real_client, job.id)
    assert done.status == "succeeded", done.error
    events = list(real_client.fine_tuning.jobs.list_events(job.id))[::-1]
    rewards = [e.data["train_mean_reward"] for e in events if e.data and "train_mean_reward" in e.data]
    print(rewards)
    assert len(rewards) == 12
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    (checkpoint,) = real_client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.metrics.model_extra["train_mean_reward"] == rewards[-1]
    assert 0 <= checkpoint.metrics.model_extra["full_valid_mean_reward"] <= 1
    folder = real_home / "fine_tuning" / job.id
    assert json.loads((folder / "grader.json").read_text()) == CHECK
    assert done.fine_tuned_model in [model.id for model in real_client.models.list()]
