"""The engine against transformers on the same folder: greedy tokens and log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import save_model

from .tiny import GEMMA, QWEN, prompt_of, random_model

LENGTHS = (1, 5, 16, 40, 150)


@pytest.fixture(scope="module", params=[QWEN, GEMMA], ids=["qwen3", "gemma3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as both read it."""
    path = tmp_path_factory.mktemp("both")
    save_model(random_model(request.param), path, None)
    return path


@pytest.fixture(scope="module")
def theirs(place: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()


@pytest.mark.parametrize("budget", [512, 24])
def test_greedy_answers_are_transformers(place: Path, theirs: Any, budget: int) -> None:
    """All prompts in one batch, longer than the window and than a step's budget."""
    prompts = [prompt_of(length, seed=length) for length in LENGTHS]
    config = EngineConfig(dtype="float32", block_size=4, max_batch_tokens=budget, max_running=8)
    done = generate_batch(Engine(place, config), prompts, Sampling(max_tokens=12, temperature=0))
    for prompt, item in zip(prompts, done, strict=True):
        ids = list(prompt)
        with torch.inference_mode():
            for _ in range(12):
                ids.append(int(theirs(torch.tensor([ids])).logits[0, -1].argmax()))
        assert item.ids == ids[len(prompt) :]


def test_a_prompts_log_probs_are_transformers(place: Path, theirs: Any) -> None:
    prompts = [prompt_of(length, seed=length) for length in LENGTHS]
    scored = Sampling(max_tokens=0, prompt_logprobs=True)
    done = generate_batch(Engine(place, EngineConfig(dtype="float32", max_batch_tokens=32)), prompts, scored)
    for prompt, item in zip(prompts, done, strict=True):
        with torch.inference_mode():
            logits = theirs(torch.tensor([prompt])).logits[0].log_softmax(-1)
        wanted = logits[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
        assert item.prompt_logprobs is not None
        assert item.prompt_logprobs[0] is None
        assert torch.allclose(torch.tensor(item.prompt_logprobs[1:]), wanted, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_where_the_blocks_lie_changes_nothing(place: Path, dtype: Literal["float32", "bfloat16"]) -> None:
    """A sequence alone in a fresh cache, and in one whose blocks others have left scattered."""
    config = EngineConfig(dtype=dtype, block_size=4, n_blocks=90, max_running=8, prefix_cache=False)
    asked, prompt = Sampling(max_tokens=30, seed=4, logprobs=True), prompt_of(37, seed=9)
    (fresh,) = generate_batch(Engine(place, config), [prompt], asked)
    engine = Engine(place, config)
    for index in range(6):
        engine.add(str(index), prompt_of(20 + index, seed=index), Sampling(max_tokens=200, seed=index))
    for _ in range(7):
        engine.step()
    for index in (0, 2, 4):
        engine.cancel(str(index))
    (scattered,) = generate_batch(engine, [prompt], asked)
    assert scattered.ids == fresh.ids
    assert torch.allclose(torch.tensor(scattered.logprobs), torch.tensor(fresh.logprobs), atol=1e-5)
