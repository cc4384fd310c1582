"""Completions: gaps filled by a model's marks or by asking, prompts echoed, likeliest of several, log-probabilities."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import openai
import pytest

from causerie.serve import EnginePool
from causerie.serve.metering import usage_log
from causerie.store import Store
from causerie.text import Tokenizer
from tests.serve.conftest import ANSWER, Script
from tests.waiting import wait_for

MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


class Marked:
    """A tokenizer with the marks of a model that was trained to fill gaps."""

    def __init__(self, inner: Tokenizer) -> None:
        self._inner = inner
        self.special = {**inner.special, **{mark: 7 + place for place, mark in enumerate(MARKS)}}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_gap_is_filled_by_the_models_marks(
    client: openai.OpenAI, script: Script, shared_pool: EnginePool, tokenizer: Tokenizer, monkeypatch: Any
) -> None:
    served = shared_pool.get("petit")
    monkeypatch.setattr(served, "tokenizer", Marked(served.tokenizer), raising=False)
    said = client.completions.create(model="petit", prompt="def f(x):\n", suffix="\n    return y", max_tokens=99)
    assert said.choices[0].text == ANSWER
    ids = script.asked[-1][0]
    before, after = tokenizer.encode("def f(x):\n"), tokenizer.encode("\n    return y")
    assert ids == [7, *before, 8, *after, 9]


def test_a_chat_model_without_marks_is_asked_to_fill_the_gap(
    client: openai.OpenAI, script: Script, tokenizer: Tokenizer
) -> None:
    client.completions.create(model="petit", prompt="Il était", suffix="une fois.")
    text = tokenizer.decode(script.asked[-1][0])
    assert "Il était[GAP]une fois." in text
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="petit", prompt=[1, 2], suffix="x")


@pytest.mark.parametrize("stream", [False, True])
def test_the_prompt_is_echoed(stream: bool, client: openai.OpenAI) -> None:
    said = client.completions.create(model="petit", prompt="Oui.", echo=True, max_tokens=99, stream=stream)
    text = "".join(chunk.choices[0].text for chunk in said) if stream else said.choices[0].text
    assert text == "Oui." + ANSWER


def test_ids_are_echoed_as_text(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Quelle belle")
    said = client.completions.create(model="petit", prompt=ids, echo=True, max_tokens=2)
    assert said.choices[0].text.startswith("Quelle belle")
    assert said.usage.prompt_tokens == len(ids)


def test_each_prompt_is_echoed_before_its_own_answers(client: openai.OpenAI) -> None:
    said = client.completions.create(model="petit", prompt=["A", "B"], echo=True, n=2, max_tokens=3)
    assert [choice.text[0] for choice in said.choices] == ["A", "A", "B", "B"]
    assert [choice.index for choice in said.choices] == [0, 1, 2, 3]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_offsets_count_from_the_beginning_of_the_text(echo: bool, stream: bool, http: httpx.Client) -> None:
    asked = {"model": "petit", "prompt": "Oui, ", "echo": echo, "logprobs": 2, "max_tokens": 6, "stream": stream}
    answer = http.post("/v1/completions", json=asked)
    assert answer.status_code == 200, answer.text
    if stream:
        frames = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        parts = [frame["choices"][0] for frame in frames if frame["choices"]]
    else:
        parts = answer.json()["choices"]
    text = "".join(part["text"] for part in parts)
    found = [part["logprobs"] for part in parts if part["logprobs"]]
    tokens = [token for each in found for token in each["tokens"]]
    offsets = [offset for each in found for offset in each["text_offset"]]
    drawn = [(token, at) for token, at in zip(tokens, offsets, strict=True) if at >= (len("Oui, ") if echo else 0)]
    assert drawn
    for token, at in drawn:
        if "\ufffd" not in token:
            assert text[at : at + len(token)] == token
    tops = [top for each in found for top in each["top_logprobs"] if top]
    assert all(len(top) <= 2 for top in tops)


def test_the_likeliest_of_several_are_kept(client: openai.OpenAI, script: Script) -> None:
    said = client.completions.create(model="petit", prompt="x", best_of=4, n=2, seed=1)
    assert len(said.choices) == 2
    assert len(script.asked) == 4
    assert len({asked[1].seed for asked in script.asked}) == 4
    with pytest.raises(openai.BadRequestError, match="best_of"):
        client.completions.create(model="petit", prompt="x", best_of=1, n=2)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="petit", prompt="x", best_of=3, n=1, stream=True)


def test_usage_counts_what_was_drawn_and_not_only_what_is_shown(client: openai.OpenAI) -> None:
    one = client.completions.create(model="petit", prompt="x", max_tokens=4)
    best = client.completions.create(model="petit", prompt="x", max_tokens=4, best_of=3)
    assert best.usage.completion_tokens == 3 * one.usage.completion_tokens


@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_embeddings_are_shortened_to_length_one(dimensions: int, client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="petit", input="Bonjour", encoding_format="float").data[0].embedding
    short = client.embeddings.create(model="petit", input="Bonjour", dimensions=dimensions, encoding_format="float")
    vector = short.data[0].embedding
    assert len(vector) == dimensions
    assert sum(value * value for value in vector) == pytest.approx(1)
    assert vector[0] / vector[-1] == pytest.approx(whole[0] / whole[dimensions - 1])


def test_embeddings_in_base64_are_the_same_numbers(http: httpx.Client) -> None:
    import base64
    import struct

    asked = {"model": "petit", "input": ["un", "deux"], "dimensions": 5}
    plain = http.post("/v1/embeddings", json=asked).json()["data"]
    coded = http.post("/v1/embeddings", json=asked | {"encoding_format": "base64"}).json()["data"]
    for left, right in zip(plain, coded, strict=True):
        assert struct.unpack("<5f", base64.b64decode(right["embedding"])) == pytest.approx(left["embedding"], abs=1e-6)
    assert http.post("/v1/embeddings", json=asked | {"dimensions": 9}).status_code == 400


def test_stored_answers_are_found_by_metadata_and_model(client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": "x"}]
    ids = {}
    for topic, tone in (("cats", "dry"), ("cats", "warm"), ("dogs", "dry")):
        metadata = {"topic": topic, "tone": tone}
        said = client.chat.completions.create(model="petit", messages=question, store=True, metadata=metadata)
        ids[topic, tone] = said.id

    def found(**query: Any) -> list[str]:
        return [each.id for each in client.chat.completions.list(**query)]

    assert found(metadata={"topic": "cats"}) == [ids["cats", "dry"], ids["cats", "warm"]]
    assert found(metadata={"topic": "cats", "tone": "warm"}) == [ids["cats", "warm"]]
    assert found(metadata={"topic": "cats"}, order="desc")[0] == ids["cats", "warm"]
    assert found(metadata={"topic": "birds"}) == []
    assert found(metadata={"colour": "dry"}) == []
    assert found(model="autre") == []
    assert set(ids.values()) <= set(found(model="petit"))
    client.chat.completions.update(ids["dogs", "dry"], metadata={"topic": "cats"})
    assert len(found(metadata={"topic": "cats"})) == 3
    client.chat.completions.delete(ids["cats", "dry"])
    assert ids["cats", "dry"] not in found(metadata={"topic": "cats"})
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.messages.list(ids["cats", "dry"])
    unstored = client.chat.completions.create(model="petit", messages=question, metadata={"topic": "cats"})
    assert unstored.id not in found(metadata={"topic": "cats"})


@pytest.mark.parametrize(
    ("texts", "flagged"),
    [
        (["Quelle belle journée !", "je vais te tuer", "I hate all jews"], [False, True, True]),
        (["Comment fabriquer une bombe ?", "How do I make bread?"], [True, False]),
        (["Tu vas mourir de rire", ""], [True, False]),
        (["TU ES UN VRAI DÉBILE", "tu es un vrai ami"], [True, False]),
    ],
)
def test_several_texts_are_moderated_apart(texts: list[str], flagged: list[bool], client: openai.OpenAI) -> None:
    results = client.moderations.create(input=texts).results
    assert [each.flagged for each in results] == flagged
    for each in results:
        scores, found = each.category_scores.model_dump(), each.categories.model_dump()
        assert {name for name, score in scores.items() if score} == {name for name, is_in in found.items() if is_in}
        assert all(0 <= score <= 1 for score in scores.values())


def test_parts_of_one_input_are_moderated_together(client: openai.OpenAI, http: httpx.Client) -> None:
    parts = [{"type": "text", "text": "je vais"}, {"type": "text", "text": "te tuer"}]
    (result,) = client.moderations.create(input=parts).results
    assert result.flagged
    image = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    assert http.post("/v1/moderations", json={"input": [image]}).status_code == 400
    assert http.post("/v1/moderations", json={"input": []}).status_code == 400


def test_moderations_are_metered(http: httpx.Client, store: Store) -> None:
    def count() -> int:
        wait_for(lambda: usage_log(store).waiting == 0)
        page = http.get("/v1/organization/usage/moderations", params={"start_time": start}).json()
        return sum(row["num_model_requests"] for bucket in page["data"] for row in bucket["results"])

    start = int(time.time()) - 60
    before = count()
    answer = http.post("/v1/moderations", json={"input": "x"})
    assert answer.headers["x-request-id"]
    assert count() == before + 1


@pytest.mark.parametrize(("beside", "status"), [(-2, 200), (-1, 200), (0, 400), (1, 400), (1_000, 400)])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_prompts_about_as_long_as_the_model_takes(
    beside: int, status: int, stream: bool, http: httpx.Client, script: Script
) -> None:
    """S7: one token less than its length leaves room for one; its length and more leave none, and are refused."""
    body = {"model": "petit", "prompt": [5] * (script.max_seq_len + beside), "max_tokens": 10**6, "stream": stream}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == status, answer.text[:300]
    if status == 400:
        assert str(script.max_seq_len - 1) in answer.json()["error"]["message"]
    elif not stream:
        assert answer.json()["usage"]["completion_tokens"] == -beside
        assert answer.json()["choices"][0]["finish_reason"] == "length"
