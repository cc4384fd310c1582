"""The whole way: a tiny random Qwen3, its engine in its own process, the server, the official client."""

from __future__ import annotations

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
