"""The engine against plain computation: the same tokens, however they were batched, chunked, cached or preempted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import FAMILIES, ModelShape, Transformer, add_lora, lora_parameters, save_model, token_log_probs

from .tiny import GEMMA, QWEN, VOCAB, drain, naive_greedy, prompt_of, random_model

SMALL = EngineConfig(block_size=4, n_blocks=200, max_batch_tokens=16)


def test_greedy_equals_the_naive_loop(model: Transformer) -> None:
    """Prompts shorter and longer than chunk, block and window, all at once."""
    prompts = [prompt_of(length, seed=length) for length in (1, 4, 7, 16, 33, 50)]
    completions = generate_batch(Engine(model, SMALL), prompts, Sampling(max_tokens=12, temperature=0))
    assert [item.ids for item in completions] == [naive_greedy(model, prompt, 12) for prompt in prompts]


def test_seeded_sampling_does_not_depend_on_the_batch(model: Transformer) -> None:
    prompts = [prompt_of(5 + 3 * index, seed=index) for index in range(8)]
    settings = [
        Sampling(max_tokens=15, seed=index, temperature=0.9, top_p=0.9 if index % 2 else 1.0, top_k=20 * (index % 3))
        for index in range(8)
    ]
    together = generate_batch(Engine(model, SMALL), prompts, settings)
    for prompt, setting, completion in zip(prompts, settings, together, strict=True):
        assert generate_batch(Engine(model), [prompt], setting)[0].ids == completion.ids


def test_log_probs_equal_the_trainers(model: Transformer) -> None:
    prompt = prompt_of(21)
    sampling = Sampling(max_tokens=30, seed=3, temperature=0.7, top_k=10, logprobs=True)
    completion = generate_batch(Engine(model, SMALL), [prompt], sampling)[0]
    ids = torch.tensor([prompt + completion.ids])
    with torch.no_grad():
        wanted = token_log_probs(model, ids, torch.ones_like(ids))[0, len(prompt) :]
    assert completion.logprobs == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_known_prefix_is_not_computed_again(model: Transformer) -> None:
    engine = Engine(model, SMALL)
    prompt = prompt_of(40)
    sampling = Sampling(max_tokens=10, temperature=0)
    first = generate_batch(engine, [prompt], sampling)[0]
    assert engine.stats["prefill_tokens"] == 40
    second = generate_batch(engine, [prompt + first.ids], sampling)[0]
    assert second.ids == naive_greedy(model, prompt + first.ids, 10)
    assert engine.stats["cached_tokens"] == 48
    assert engine.stats["prefill_tokens"] == 40 + 2


def test_the_event_says_what_was_cached(qwen: Transformer) -> None:
    engine = Engine(qwen, SMALL)
    for salt, cached in (("a", 0), ("a", 12), ("b", 0)):
        engine.add("x", prompt_of(14), Sampling(max_tokens=1), salt=salt)
        (event,) = engine.step()
        assert (event.prompt_tokens, event.completion_tokens, event.cached_tokens) == (14, 1, cached)


def test_changed_weights_need_forgotten_prefixes(qwen: Transformer) -> None:
    engine = Engine(qwen, SMALL)
    generate_batch(engine, [prompt_of(20)], Sampling(max_tokens=1))
    engine.forget_prefixes()
    generate_batch(engine, [prompt_of(20)], Sampling(max_tokens=1))
    assert engine.stats["cached_tokens"] == 0


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preemption_changes_no_token(model: Transformer, prefix_cache: bool) -> None:
    prompts = [prompt_of(10 + index, seed=index) for index in range(5)]
    settings = [Sampling(max_tokens=25, seed=index, frequency_penalty=0.5) for index in range(5)]
    roomy = generate_batch(Engine(model, SMALL), prompts, settings)
    tight = Engine(model, EngineConfig(block_size=4, n_blocks=17, max_batch_tokens=16, prefix_cache=prefix_cache))
    assert [item.ids for item in generate_batch(tight, prompts, settings)] == [item.ids for item in roomy]
    assert tight.scheduler.preemptions > 0
    assert tight.pool.n_free == 17


def test_cancelling_frees_blocks_and_disturbs_nobody(qwen: Transformer) -> None:
    engine = Engine(qwen, EngineConfig(block_size=4, n_blocks=60, max_running=2))
    for index in range(3):
        engine.add(str(index), prompt_of(9, seed=index), Sampling(max_tokens=20, temperature=0))
    engine.step()
    free = engine.pool.n_free
    engine.cancel("0")
    engine.cancel("2")
    engine.cancel("unknown")
    assert engine.pool.n_free > free
    done = drain(engine)
    assert {name: item.finish for name, item in done.items()} == {"0": "cancelled", "1": "length", "2": "cancelled"}
    assert done["1"].ids[-19:] == naive_greedy(qwen, prompt_of(9, seed=1), 20)[1:]
    assert engine.pool.n_free == 60
    assert not engine.has_work


def test_a_stop_id_ends_the_completion_and_is_its_last(qwen: Transformer) -> None:
    plain = naive_greedy(qwen, prompt_of(6), 10)
    stop = plain[4]
    completion = generate_batch(Engine(qwen), [prompt_of(6)], Sampling(temperature=0, stop_ids=(stop,)))[0]
    assert completion.ids == plain[: plain.index(stop) + 1]
    assert completion.finish == "stop"


def test_completions_end_at_the_models_length(qwen: Transformer) -> None:
    engine = Engine(qwen, EngineConfig(max_seq_len=20))
    (completion,) = generate_batch(engine, [prompt_of(15)], Sampling(max_tokens=100))
    assert (len(completion.ids), completion.finish) == (5, "length")


@pytest.mark.parametrize(
    "prompt", [[], [VOCAB], [-1], [1] * 256, [1] * 10_000], ids=["none", "id", "sign", "256", "10k"]
)
def test_impossible_prompts_are_refused(qwen: Transformer, prompt: list[int]) -> None:
    engine = Engine(qwen)
    with pytest.raises(CauserieError) as caught:
        engine.add("x", prompt, Sampling())
    assert caught.value.code == "CAU-3101"
    assert not engine.has_work


def test_the_longest_prompt_is_served(qwen: Transformer) -> None:
    (completion,) = generate_batch(Engine(qwen), [[1] * 255], Sampling())
    assert (len(completion.ids), completion.finish) == (1, "length")


def test_one_bad_prompt_leaves_nothing_behind(qwen: Transformer) -> None:
    engine = Engine(qwen)
    with pytest.raises(CauserieError):
        generate_batch(engine, [[1, 2], []], Sampling())
    drain(engine)
    assert engine.pool.n_free == engine.n_blocks


def test_an_id_in_use_is_refused(qwen: Transformer) -> None:
    engine = Engine(qwen)
    engine.add("x", [1], Sampling())
    with pytest.raises(CauserieError) as caught:
        engine.add("x", [2], Sampling())
    assert caught.value.code == "CAU-3104"


def test_a_folder_gives_the_same_engine(qwen: Transformer, folder: Path) -> None:
    engine = Engine(folder, SMALL)
    assert engine.info["stop_ids"] == [3, 5]
    assert engine.info["dtype"] == "float32"
    sampling = Sampling(max_tokens=8, temperature=0)
    assert generate_batch(engine, [prompt_of(9)], sampling)[0].ids == naive_greedy(qwen, prompt_of(9), 8)


def test_a_cache_without_room_is_refused(qwen: Transformer) -> None:
    with pytest.raises(CauserieError) as caught:
        Engine(qwen, EngineConfig(cache_mb=1, block_size=100_000))
    assert caught.value.code == "CAU-3103"


def test_unseeded_requests_differ(qwen: Transformer) -> None:
    settings = Sampling(max_tokens=20, temperature=2.0)
    completions = generate_batch(Engine(qwen), [prompt_of(5)] * 6, settings)
    assert len({tuple(item.ids) for item in completions}) > 1


SETTINGS = [
    Sampling(max_tokens=14, seed=1),
    Sampling(max_tokens=14, seed=2, temperature=0.8, top_p=0.9),
    Sampling(max_tokens=14, seed=3, temperature=1.3, top_k=5),
    Sampling(max_tokens=14, seed=4, min_p=0.1),
    Sampling(max_tokens=14, seed=5, frequency_penalty=0.7, presence_penalty=0.2),
    Sampling(max_tokens=14, seed=6, repetition_penalty=1.3),
    Sampling(max_tokens=14, seed=7, logit_bias=((3, 4.0), (5, -100.0))),
    Sampling(max_tokens=14, seed=8, stop_ids=(3, 4, 5), min_tokens=10),
    Sampling(max_tokens=14, temperature=0.0, logprobs=True, top_logprobs=3),
]
NUMBERS = [
    EngineConfig(block_size=4, n_blocks=200, max_batch_tokens=16),
    EngineConfig(block_size=4, n_blocks=30, max_batch_tokens=16),
    EngineConfig(block_size=4, n_blocks=200, max_batch_tokens=64, quantize="int8"),
]


@pytest.mark.parametrize("config", NUMBERS, ids=["roomy", "preempting", "int8"])
def test_same_seed_same_tokens_alone_and_in_a_full_batch(folder: Path, config: EngineConfig) -> None:
    """S14 of the fault list, with every way of sampling, float32 and 8 bits."""
    if config.quantize and not torch.cpu._is_vnni_supported():
        pytest.skip("needs a processor with VNNI instructions")
    prompts = [prompt_of(5 + 2 * index, seed=index) for index in range(len(SETTINGS))]
    engine = Engine(folder, config)
    together = generate_batch(engine, prompts, SETTINGS)
    for prompt, setting, completion in zip(prompts, SETTINGS, together, strict=True):
        alone = Engine(folder, config)
        assert generate_batch(alone, [prompt], setting)[0].ids == completion.ids, setting


def test_fewest_tokens_hold_back_stops(qwen: Transformer) -> None:
    sampling = Sampling(max_tokens=20, seed=1, stop_ids=tuple(range(50)), min_tokens=8)
    (done,) = generate_batch(Engine(qwen), [prompt_of(5)], sampling)
    assert all(token >= 50 for token in done.ids[:8])
    assert (len(done.ids) > 8) == (done.finish == "stop")


def test_higher_priorities_leave_the_queue_first(qwen: Transformer) -> None:
    engine = Engine(qwen, EngineConfig(max_running=1))
    for name, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 5), ("e", 1)):
        engine.add(name, [1], Sampling(max_tokens=1), priority=priority)
    order = [event.request_id for _ in range(5) for event in engine.step()]
    assert order == ["c", "d", "e", "a", "b"]


def test_new_weights_are_used_from_the_next_token_on(folder: Path, qwen: Transformer) -> None:
    """Rollouts of reinforcement learning: what was said stays, all after it is the new model's."""
    other = random_model(replace(QWEN, max_seq_len=50_000), seed=7)
    engine = Engine(folder, SMALL)
    engine.add("x", prompt_of(9), Sampling(max_tokens=8, temperature=0))
    said = [token for _ in range(3) for event in engine.step() for token in event.ids]
    assert said == naive_greedy(qwen, prompt_of(9), len(said))
    engine.update_weights(other)
    while engine.has_work:
        said += [token for event in engine.step() for token in event.ids]
    assert said[-5:] == naive_greedy(other, prompt_of(9) + said[:-5], 5)
    generate_batch(engine, [prompt_of(30)], Sampling(max_tokens=1))
    engine.update_weights(folder)
    (done,) = generate_batch(engine, [prompt_of(30)], Sampling(max_tokens=5, temperature=0))
    assert done.ids == naive_greedy(qwen, prompt_of(30), 5)
    add_lora(other, 2, 4.0)
    for name, parameter in lora_parameters(other).items():
        if name.endswith("lora_B"):
            parameter.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    engine.update_weights(other)
    sampling = Sampling(max_tokens=5, temperature=0)
    assert generate_batch(engine, [prompt_of(9)], sampling)[0].ids == naive_greedy(other, prompt_of(9), 5)


def test_weights_of_another_model_are_refused(folder: Path, qwen: Transformer) -> None:
    engine = Engine(folder)
    for wrong in (random_model(GEMMA), {"norm.weight": torch.ones(3)}):
        with pytest.raises(CauserieError) as caught:
            engine.update_weights(wrong)
        assert caught.value.code == "CAU-3108"
    sampling = Sampling(max_tokens=5, temperature=0)
    assert generate_batch(engine, [prompt_of(9)], sampling)[0].ids == naive_greedy(qwen, prompt_of(9), 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 2**63},
        {"logit_bias": tuple((token, 1.0) for token in range(10**6))},
        {"stop_ids": tuple(range(10**6))},
        {"top_logprobs": 21},
        {"temperature": float("nan")},
        {"seed": 2**70},
        {"repetition_penalty": 0},
        {"adapter": ""},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_absurd_settings_are_refused(wrong: dict[str, Any]) -> None:
    """S7 of the fault list; prompts of impossible lengths are above."""
    with pytest.raises(CauserieError) as caught:
        Sampling(**wrong)
    assert caught.value.code == "CAU-3102"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_decoder_family_runs(family: str, tmp_path: Path) -> None:
    """As loaded, and made lean from a folder: the naive loop's tokens."""
    row = FAMILIES[family]
    if not row.causal:
        pytest.skip("an encoder generates nothing")
    sliding = {"local_layers": (True, False), "sliding_window": 7} if family.startswith("gemma") else {}
    shape = ModelShape(family, 2, 32, 4, 4, 8, 48, VOCAB, max_seq_len=128, tie_embeddings=True, **sliding)
    try:
        model = random_model(shape)
        save_model(model, tmp_path, None)
        engines = [Engine(model, SMALL), Engine(tmp_path, SMALL)]
    except CauserieError as error:  # a family may want other sizes than these
        pytest.skip(f"not of this shape: {error}")
    sampling = Sampling(max_tokens=8, temperature=0)
    for engine in engines:
        found = generate_batch(engine, [prompt_of(20), prompt_of(3)], sampling)
        assert [item.ids for item in found] == [naive_greedy(model, prompt_of(n), 8) for n in (20, 3)]
