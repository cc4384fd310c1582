"""`--out` over what a training is made from is refused before any work, and what stands there stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causerie.align import DpoConfig, GrpoConfig, KtoConfig, RewardConfig, dpo, grpo, kto, reward
from causerie.core import Artifact, CauserieError, content_key, write_artifact, write_jsonl
from causerie.train import SftConfig, sft

Make = Callable[[dict[str, Any], Path], Artifact]
STEP: dict[str, Any] = {"steps": 1, "precision": "fp32", "warmup": 0}
TRAININGS: dict[str, Make] = {
    "sft": lambda given, place: sft(
        SftConfig(**given, **STEP, data=(place / "chats.jsonl",), seq_len=64, compile="off", heldout_fraction=0.0),
        place,
    ),
    "dpo": lambda given, place: dpo(DpoConfig(**given, **STEP, preferences=place / "votes"), place),
    "kto": lambda given, place: kto(KtoConfig(**given, **STEP, preferences=place / "votes"), place),
    "grpo": lambda given, place: grpo(
        GrpoConfig(**given, **STEP, prompts=place / "sums.jsonl", batch_size=2, max_tokens=4), place
    ),
}


@pytest.fixture
def place(workspace: Path, tiny: Path, preferences: Path) -> Path:
    """A workspace with the tiny model as an artifact, and what each training learns from."""
    with write_artifact(workspace, "model", "start", "5" * 64) as draft:
        for file in tiny.iterdir():
            shutil.copy(file, draft.path / file.name)
    assert draft.artifact is not None
    draft.artifact.path.rename(workspace / "start")
    shutil.copytree(preferences, workspace / "votes")
    talk = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat on a mat"}]
    write_jsonl(workspace / "chats.jsonl", [{"messages": talk}] * 4)
    write_jsonl(workspace / "sums.jsonl", [{"prompt": f"{n} + 1", "answer": str(n + 1)} for n in range(8)])
    return workspace


def refused(make: Make, given: dict[str, Any], place: Path) -> None:
    before = content_key(given["out"]), sorted(p.name for p in given["out"].iterdir())
    runs = len(list((place / "runs").glob("*")))
    with pytest.raises(CauserieError) as caught:
        make(given, place)
    assert (caught.value.code, caught.value.where) == ("CAU-1009", str(given["out"]))
    assert "made from" in caught.value.cause
    assert (content_key(given["out"]), sorted(p.name for p in given["out"].iterdir())) == before
    assert len(list((place / "runs").glob("*"))) == runs, "it was found before a run began"


@pytest.mark.parametrize("name", TRAININGS)
def test_over_the_model_that_is_trained(name: str, place: Path) -> None:
    refused(TRAININGS[name], {"model": place / "start", "out": place / "start"}, place)


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_over_the_adapter_that_is_trained_further(name: str, place: Path) -> None:
    made = TRAININGS[name]({"model": place / "start", "out": place / "first", "lora_rank": 2}, place)
    refused(TRAININGS[name], {"model": made.path, "out": made.path}, place)
    again = TRAININGS[name]({"model": made.path, "out": place / "second"}, place)
    assert again.manifest.inputs["model"] == made.key


@pytest.mark.parametrize("stands", ["preferences", "model"])
def test_over_an_input_of_another_kind(stands: str, place: Path) -> None:
    """Nothing but an artifact of its own kind is ever replaced."""
    out = place / "votes" if stands == "preferences" else place / "start"
    with pytest.raises(CauserieError, match="CAU-1009"):
        reward(RewardConfig(model=place / "start", preferences=place / "votes", out=out, **STEP), place)
    assert (out / ("pairs.jsonl" if stands == "preferences" else "model.safetensors")).is_file()
