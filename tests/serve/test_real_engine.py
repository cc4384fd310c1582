"""The whole way: a tiny random Qwen3, its engine in its own process, the server, the official client."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import openai
import pytest

from causerie.serve import EnginePool
from tests.serve.conftest import Running

QUESTION = [{"role": "user", "content": "Quelle belle journée !"}]


@pytest.fixture
def real_client(real: Running) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="x", max_retries=0) as client:
        yield client


@pytest.mark.slow
def test_the_official_client_streams_from_a_real_engine(real_client: openai.OpenAI, real_pool: EnginePool) -> None:
    """Slow: a worker process loads torch."""
    asked = {"model": "petit", "messages": QUESTION, "max_tokens": 40, "seed": 5}
    whole = real_client.chat.completions.create(**asked, logprobs=True)
    chunks = list(real_client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert streamed == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens > 0
    assert all(row.logprob <= 0 for row in whole.choices[0].logprobs.content)
    other = real_client.chat.completions.create(**asked | {"seed": 6})
    assert other.choices[0].message.content != streamed
    several = real_client.chat.completions.create(**asked, n=3)
    assert several.choices[0].message.content == streamed
    assert len({choice.message.content for choice in several.choices}) == 3
    greedy = [real_client.chat.completions.create(**asked | {"temperature": 0}).choices[0] for _ in range(2)]
    assert greedy[0].message.content == greedy[1].message.content


@pytest.mark.slow
def test_a_killed_engine_comes_back(real_client: openai.OpenAI, real_pool: EnginePool) -> None:
    """Slow: a worker process loads torch, twice."""
    asked = {"model": "petit", "messages": QUESTION, "max_tokens": 8, "seed": 5, "temperature": 0}
    before = real_client.chat.completions.create(**asked).choices[0].message.content
    os.kill(real_pool.get("petit").engine.info["pid"], signal.SIGKILL)
    time.sleep(0.2)
    assert real_client.chat.completions.create(**asked, timeout=60).choices[0].message.content == before


@pytest.mark.slow
def test_grammars_hold_a_random_model(real_client: openai.OpenAI) -> None:
    """Slow: shares the module's engine process. A random model keeps to a schema only when it is held to it."""
    schema = {
        "type": "object",
        "properties": {"sky": {"enum": ["blue", "grey"]}, "degrees": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["sky", "degrees"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema, "strict": True}}
    for seed in range(4):
        answer = real_client.chat.completions.create(
            model="petit", messages=QUESTION, response_format=format, max_tokens=120, seed=seed
        )
        assert answer.choices[0].finish_reason == "stop"
        found = json.loads(answer.choices[0].message.content)
        assert found["sky"] in ("blue", "grey")
        assert 0 <= found["degrees"] <= 99
    tool = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    for stream in (False, True):
        asked = {"model": "petit", "messages": QUESTION, "tools": [tool], "tool_choice": "required", "max_tokens": 200}
        if stream:
            with real_client.chat.completions.stream(**asked) as events:
                list(events)
                message = events.get_final_completion().choices[0].message
        else:
            message = real_client.chat.completions.create(**asked).choices[0].message
        (call,) = message.tool_calls
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["sky"] in ("blue", "grey")
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError):
        real_client.chat.completions.create(model="petit", messages=QUESTION, response_format=bad)


@pytest.mark.slow
def test_prompts_are_scored_and_embedded(real_client: openai.OpenAI) -> None:
    """Slow: shares the module's engine process."""
    got = real_client.completions.create(
        model="petit", prompt="Quelle belle", max_tokens=3, logprobs=2, echo=True, seed=1
    )
    found = got.choices[0].logprobs
    assert "".join(found.tokens) == got.choices[0].text
    assert found.token_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    assert all(1 <= len(row) <= 2 for row in found.top_logprobs[1:])  # bytes of one spelling share a place
    only = real_client.completions.create(model="petit", prompt="Quelle belle", max_tokens=0, logprobs=0, echo=True)
    assert only.choices[0].text == "Quelle belle"
    count = len(only.choices[0].logprobs.tokens)
    assert only.choices[0].logprobs.token_logprobs[1:] == pytest.approx(found.token_logprobs[1:count], abs=1e-4)
    answer = real_client.chat.completions.create(
        model="petit", messages=QUESTION, logprobs=True, top_logprobs=4, max_tokens=3, temperature=0
    )
    for row in answer.choices[0].logprobs.content:
        assert row.logprob == pytest.approx(max(other.logprob for other in row.top_logprobs), abs=1e-6)
    first, second, again = (
        row.embedding for row in real_client.embeddings.create(model="petit", input=["a b", "journée", "a b"]).data
    )
    assert first == pytest.approx(again, abs=1e-5)
    assert sum(x * y for x, y in zip(first, second, strict=True)) < 0.9999
