"""Adapters by request: in one batch with others, each answers as the model with it merged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from causerie.core import CauserieError
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import Transformer, add_lora, load_model, lora_parameters, merge_lora, save_adapter, save_model

from .tiny import GEMMA, QWEN, naive_greedy, prompt_of, random_model

NAMES = ("french", "legal", "partial")


@pytest.fixture(scope="module", params=["qwen3", "gemma3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder and three adapters of different ranks and targets."""
    folder = tmp_path_factory.mktemp("adapters")
    shape = QWEN if request.param == "qwen3" else GEMMA
    (folder / "base").mkdir()
    save_model(random_model(shape), folder / "base", None)
    for index, name in enumerate(NAMES):
        model = load_model(folder / "base")
        targets = ("q_proj", "down_proj") if name == "partial" else ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj")
        add_lora(model, 2 + index, 4.0, targets, seed=index)
        generator = torch.Generator().manual_seed(index)
        for key, parameter in lora_parameters(model).items():
            if key.endswith("lora_B"):
                parameter.data.normal_(0, 0.5, generator=generator)
        (folder / name).mkdir()
        save_adapter(model, folder / name, folder / "base")
    return folder


def merged(place: Path, name: str) -> Transformer:
    return load_model(place / name, merge_adapters=True).eval()


def test_each_row_of_a_batch_answers_as_its_merged_model(place: Path) -> None:
    engine = Engine(place / "base", EngineConfig(block_size=4, max_batch_tokens=24))
    for name in NAMES:
        engine.load_adapter(name, place / name)
    who = [None, "legal", "french", "partial", None, "french", "legal"]
    prompts = [prompt_of(5 + 4 * index, seed=index) for index in range(len(who))]
    done = generate_batch(engine, prompts, [Sampling(max_tokens=8, temperature=0, adapter=name) for name in who])
    models = {None: load_model(place / "base").eval(), **{name: merged(place, name) for name in NAMES}}
    for name, prompt, completion in zip(who, prompts, done, strict=True):
        assert completion.ids == naive_greedy(models[name], prompt, 8), name


def test_log_probs_are_those_of_merged_weights(place: Path) -> None:
    engine = Engine(place / "base")
    engine.load_adapter("legal", place / "legal")
    prompt = prompt_of(30)
    sampling = Sampling(max_tokens=0, prompt_logprobs=True, adapter="legal")
    (found,) = generate_batch(engine, [prompt], sampling)
    (wanted,) = generate_batch(Engine(place / "legal"), [prompt], replace(sampling, adapter=None))
    assert found.prompt_logprobs is not None
    assert wanted.prompt_logprobs is not None
    assert found.prompt_logprobs[1:] == pytest.approx(wanted.prompt_logprobs[1:], abs=1e-4)


def test_rows_without_an_adapter_are_the_same_bits_beside_one(place: Path) -> None:
    """Also where an activation sits behind its product; the adapter's own rows are near its merged model's."""
    base, merged_in = (Engine(place / name, EngineConfig(dtype="bfloat16")) for name in ("base", "legal"))
    mixed = Engine(place / "base", EngineConfig(dtype="bfloat16"))
    mixed.load_adapter("legal", place / "legal")
    prompts = [prompt_of(9 + index, seed=index) for index in range(5)]
    asked = [Sampling(max_tokens=8, seed=index, logprobs=True) for index in range(5)]
    forced = Sampling(max_tokens=0, prompt_logprobs=True)
    beside = [replace(item, adapter="legal" if index == 2 else None) for index, item in enumerate(asked)]
    found, alone = generate_batch(mixed, prompts, beside), generate_batch(base, prompts, asked)
    for index in (0, 1, 3, 4):
        assert found[index].ids == alone[index].ids
        assert found[index].logprobs == alone[index].logprobs
    (near,) = generate_batch(mixed, prompts[2:3], replace(forced, adapter="legal"))
    (far,), (wanted,) = (generate_batch(engine, prompts[2:3], forced) for engine in (base, merged_in))
    near_, far_, wanted_ = (torch.tensor((item.prompt_logprobs or [])[1:]) for item in (near, far, wanted))
    assert (near_ - wanted_).norm() < 0.1 * (far_ - wanted_).norm()


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs a processor with VNNI instructions")
@pytest.mark.parametrize("kind", ["int8", "int8-head"])
def test_adapters_work_on_8_bits(place: Path, kind: Literal["int8", "int8-head"]) -> None:
    engine = Engine(place / "base", EngineConfig(quantize=kind))
    engine.load_adapter("legal", place / "legal")
    prompt = prompt_of(30)
    sampling = Sampling(max_tokens=0, prompt_logprobs=True, adapter="legal")
    near, far = (
        generate_batch(Engine(folder), [prompt], replace(sampling, adapter=None))[0].prompt_logprobs
        for folder in (place / "legal", place / "base")
    )
    found = generate_batch(engine, [prompt], sampling)[0].prompt_logprobs
    assert found is not None
    assert near is not None
    assert far is not None

    def distance(other: list[float | None]) -> float:
        return sum(abs(a - b) for a, b in zip(found[1:], other[1:], strict=True)) / (len(prompt) - 1)  # type: ignore[operator]

    assert distance(near) < 0.2 * distance(far)


def test_cached_prefixes_of_adapters_are_kept_apart(place: Path) -> None:
    engine = Engine(place / "base", EngineConfig(block_size=4))
    engine.load_adapter("a", place / "legal")
    cached = []
    for name in (None, "a", "a", None):
        engine.add("x", prompt_of(20), Sampling(max_tokens=1, adapter=name))
        (event,) = engine.step()
        cached.append(event.cached_tokens)
    assert cached == [0, 0, 16, 16]
    engine.unload_adapter("a")
    engine.load_adapter("a", place / "french")
    engine.add("x", prompt_of(20), Sampling(max_tokens=1, adapter="a"))
    assert engine.step()[0].cached_tokens == 0


def test_unloading_lets_running_requests_end(place: Path) -> None:
    engine = Engine(place / "base")
    engine.load_adapter("a", place / "legal")
    engine.add("x", prompt_of(9), Sampling(max_tokens=6, temperature=0, adapter="a"))
    ids = [token for event in engine.step() for token in event.ids]
    engine.unload_adapter("a")
    with pytest.raises(CauserieError) as caught:
        engine.add("y", [1], Sampling(adapter="a"))
    assert caught.value.code == "CAU-3111"
    while engine.has_work:
        ids += [token for event in engine.step() for token in event.ids]
    assert ids == naive_greedy(merged(place, "legal"), prompt_of(9), 6)


def test_what_does_not_fit_is_refused(place: Path, qwen: Transformer, tmp_path: Path) -> None:
    engine = Engine(place / "base")
    engine.load_adapter("a", place / "legal")
    with pytest.raises(CauserieError) as caught:
        engine.load_adapter("a", place / "legal")
    assert caught.value.code == "CAU-3111"
    other = random_model(replace(QWEN, n_embd=48))
    add_lora(other, 2, 2.0)
    save_adapter(other, tmp_path, place / "base")
    with pytest.raises(CauserieError) as caught:
        engine.load_adapter("other", tmp_path)
    assert caught.value.code == "CAU-3008"
    with pytest.raises(CauserieError) as caught:
        Engine(qwen).load_adapter("a", place / "legal")
    assert caught.value.code == "CAU-3108"
    assert engine.info["adapters"] == ["a"]


def test_an_adapter_folder_is_served_merged(place: Path) -> None:
    model = load_model(place / "french", merge_adapters=False)
    merge_lora(model)
    sampling = Sampling(max_tokens=6, temperature=0)
    assert generate_batch(Engine(place / "french"), [prompt_of(9)], sampling)[0].ids == naive_greedy(
        model.eval(), prompt_of(9), 6
    )
