"""What is read from a prompt itself: embeddings and log-probabilities, however it was chunked or cached."""

from __future__ import annotations

import pytest
import torch

from causerie.core import CauserieError
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.request import Pooling
from causerie.model import Transformer, token_log_probs

from .tiny import naive_greedy, prompt_of

SMALL = EngineConfig(block_size=4, n_blocks=200, max_batch_tokens=16)


def embed(engine: Engine, texts: list[list[int]], pooling: Pooling) -> list[list[float]]:
    for index, ids in enumerate(texts):
        engine.add_embedding(str(index), ids, pooling)
    found: dict[str, list[float]] = {}
    while engine.has_work:
        for event in engine.step():
            if event.embedding is not None:
                found[event.request_id] = event.embedding
    return [found[str(index)] for index in range(len(texts))]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embeddings_are_the_pooled_hidden_states(model: Transformer, pooling: Pooling) -> None:
    texts = [prompt_of(length, seed=length) for length in (1, 5, 16, 40)]
    engine = Engine(model, SMALL)
    generate_batch(engine, [texts[3]], Sampling(max_tokens=1))  # a cached prefix must not shorten the mean
    for ids, found in zip(texts, embed(engine, texts, pooling), strict=True):
        with torch.no_grad():
            hidden = model(torch.tensor([ids]))[0]
        wanted = hidden.mean(dim=0) if pooling == "mean" else hidden[-1]
        assert found == pytest.approx((wanted / wanted.norm()).tolist(), abs=1e-5)
    assert engine.pool.n_free == engine.n_blocks


def test_embeddings_and_answers_share_a_batch(qwen: Transformer) -> None:
    engine = Engine(qwen, SMALL)
    engine.add("chat", prompt_of(9), Sampling(max_tokens=6, temperature=0))
    engine.add_embedding("text", prompt_of(30), "mean")
    ids: list[int] = []
    while engine.has_work:
        for event in engine.step():
            ids += event.ids
            assert (event.embedding is None) == (event.request_id == "chat")
    assert ids == naive_greedy(qwen, prompt_of(9), 6)


def test_embedding_survives_preemption(qwen: Transformer) -> None:
    tight = Engine(qwen, EngineConfig(block_size=4, n_blocks=17, max_batch_tokens=16))
    texts = [prompt_of(30, seed=seed) for seed in range(3)]
    tight.add("first", prompt_of(20), Sampling(max_tokens=40, temperature=0))
    found = embed(tight, texts, "mean")
    roomy = embed(Engine(qwen), texts, "mean")
    for one, other in zip(found, roomy, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("new", [0, 1, 5])
def test_prompt_log_probs_equal_the_trainers(model: Transformer, new: int) -> None:
    engine = Engine(model, SMALL)
    prompt = prompt_of(41)
    generate_batch(engine, [prompt], Sampling(max_tokens=1))
    sampling = Sampling(max_tokens=new, prompt_logprobs=True, temperature=0)
    (done,) = generate_batch(engine, [prompt], sampling)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        wanted = token_log_probs(model, ids, torch.ones_like(ids))[0]
    assert done.prompt_logprobs is not None
    assert done.prompt_logprobs[0] is None
    assert done.prompt_logprobs[1:] == pytest.approx(wanted[1:].tolist(), abs=1e-4)
    assert done.ids == naive_greedy(model, prompt, new)
    assert done.finish == "length"


def test_alternatives_are_the_likeliest(qwen: Transformer) -> None:
    sampling = Sampling(max_tokens=4, seed=1, logprobs=True, top_logprobs=5, prompt_logprobs=True)
    prompt = prompt_of(9)
    engine = Engine(qwen)
    engine.add("x", prompt, sampling)
    events = []
    while engine.has_work:
        events += engine.step()
    ids = prompt + [token for event in events for token in event.ids]
    with torch.no_grad():
        scores = qwen.logits(qwen(torch.tensor([ids]))[0]).log_softmax(-1)
    assert events[0].prompt_top_logprobs is not None
    assert events[1].prompt_logprobs is None
    told = events[0].prompt_top_logprobs[1:] + [some for event in events for some in event.top_logprobs]
    for place, some in enumerate(told):
        wanted = scores[place].topk(5)
        assert [token for token, _ in some] == wanted.indices.tolist()
        assert [score for _, score in some] == pytest.approx(wanted.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("ids", [[], [97], [-1], [1] * 257], ids=["none", "id", "sign", "long"])
def test_impossible_texts_are_refused(qwen: Transformer, ids: list[int]) -> None:
    engine = Engine(qwen)
    with pytest.raises(CauserieError) as caught:
        engine.add_embedding("x", ids)
    assert caught.value.code == "CAU-3101"
    assert not engine.has_work


def test_the_longest_text_is_embedded(qwen: Transformer) -> None:
    assert len(embed(Engine(qwen), [[1] * 256], "last")[0]) == 32
