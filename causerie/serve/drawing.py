"""Drawing the answers of one request: admission, leases, several choices at once, metering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request

from causerie.core import seed_for
from causerie.infer import Sampling
from causerie.serve.answer import Alternatives, AnswerParams, ChatDelta, Usage, sampling_for, text_stream, with_seed
from causerie.serve.gate import SHED_TOKENS, Asking
from causerie.serve.keys import Principal
from causerie.serve.metering import Meter
from causerie.serve.pool import Served
from causerie.serve.routes import Office


@dataclass
class Choice:
    """One answer as far as it is drawn."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    usage: Usage | None = None
    top_logprobs: list[Any] = field(default_factory=list)
    prompt_logprobs: Sequence[float | None] | None = None
    prompt_top_logprobs: Alternatives | None = None

    def add(self, delta: ChatDelta) -> None:
        """Append a delta."""
        self.text += delta.text
        self.ids += delta.ids
        self.logprobs += delta.logprobs
        self.finish = delta.finish or self.finish
        self.usage = delta.usage or self.usage
        self.top_logprobs += delta.top_logprobs
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs, self.prompt_top_logprobs = delta.prompt_logprobs, delta.prompt_top_logprobs

    @property
    def mean_logprob(self) -> float:
        """Nats per token, by which the best of several answers is found."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else float("-inf")


@dataclass(frozen=True)
class Job:
    """What one request asks for: choices `i * n .. i * n + n - 1` complete prompt `i`."""

    served: Served
    prompts: Sequence[list[int]]
    n: int
    params: AnswerParams
    stop_ids: Sequence[int]
    sampling: Sampling | None = None
    """The engine's settings of the first choice, when they are known."""

    @property
    def tokens(self) -> int:
        """Tokens that all choices may need."""
        room = [min(self.params.max_tokens or self.served.max_seq_len, self.served.max_seq_len)] * len(self.prompts)
        return self.n * sum(len(prompt) + most for prompt, most in zip(self.prompts, room, strict=True))


@asynccontextmanager
async def admitted(
    office: Office, request: Request, principal: Principal, model: str, prepare: Callable[[Served], Awaitable[Job]]
) -> AsyncIterator[tuple[Job, Meter]]:
    """Hold what drawing needs for the block: the served version, slots at the gate, a meter.

    Args:
        model: the name asked for.
        prepare: makes the job once the version is known (tokenizers differ between versions).

    Raises:
        CauserieError: CAU-6003, CAU-6006 and what `prepare` raises. ApiError: 429.
    """
    pool = office.pool
    async with pool.lease(model, principal.owner) as served:
        job = await prepare(served)
        meter = Meter(
            office.store, request.scope["route"].path, principal.key_id, project=principal.owner, tally=office.tally
        )
        asking = asking_of(request, principal)
        if asking.free and pool.gate.stage:
            job = _shortened(job, meter)
        longest = max(map(len, job.prompts))
        sampling = sampling_for(served, longest, job.params, job.stop_ids)
        if len(job.prompts) == 1:
            job = replace(job, sampling=sampling)
        async with pool.gate.admit(asking, len(job.prompts) * job.n, job.tokens, served.lane, meter):
            if asking.holders:
                meter.headers |= pool.gate.quotas.remaining(asking.holders)
            with meter:
                yield job, meter


def asking_of(request: Request, principal: Principal) -> Asking:
    """Who asks, and how long they wait: OpenAI's clients say when they will have given up."""
    text = request.headers.get("x-stainless-read-timeout", "")
    try:
        seconds = float(text[:16]) if text else None
    except ValueError:
        seconds = None
    if seconds is None or not 0 < seconds < 1e6:
        return principal.asking
    return replace(principal.asking, seconds=seconds)


def _shortened(job: Job, meter: Meter) -> Job:
    """A job that is content with less, while the server is short of room; a header says so."""
    most = job.params.max_tokens
    if most is not None and most <= SHED_TOKENS:
        return job
    meter.headers["x-causerie-shortened"] = str(SHED_TOKENS)
    return replace(job, params=replace(job.params, max_tokens=SHED_TOKENS))


async def draw(job: Job, meter: Meter) -> AsyncGenerator[tuple[int, ChatDelta], None]:
    """Deltas of all choices as they come, each with its choice's number.

    Choice 0 uses the request's seed, so that `n` does not change it; the others use seeds derived from it.
    """
    choices = len(job.prompts) * job.n
    if choices == 1:
        async with aclosing(_stream(job, 0, meter)) as stream:
            async for delta in stream:
                yield 0, delta
        return
    queue: asyncio.Queue[tuple[int, ChatDelta | Exception]] = asyncio.Queue(64)
    tasks = [asyncio.create_task(_draw_one(job, number, meter, queue)) for number in range(choices)]
    try:
        open_choices = choices
        while open_choices:
            number, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            yield number, item
            open_choices -= item.finish is not None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _draw_one(job: Job, number: int, meter: Meter, queue: asyncio.Queue[Any]) -> None:
    try:
        async with aclosing(_stream(job, number, meter)) as stream:
            async for delta in stream:
                await queue.put((number, delta))
    except Exception as error:
        await queue.put((number, error))


async def _stream(job: Job, number: int, meter: Meter) -> AsyncGenerator[ChatDelta, None]:
    """The deltas of one choice, counted."""
    index, seed, prompt = number % job.n, job.params.seed, job.prompts[number // job.n]
    params = with_seed(job.params, seed_for(seed, index)) if seed is not None and index else job.params
    sampling = job.sampling if not number else None
    given = len(prompt) if index == 0 else 0
    salt = meter.key_id or ""
    stream = text_stream(job.served, prompt, params, job.stop_ids, salt=salt, sampling=sampling)
    async with aclosing(stream):
        async for delta in stream:
            meter.count(delta, given)
            given = 0
            yield delta


def add_usage(choices: Sequence[Choice], prompts: Sequence[list[int]]) -> dict[str, Any]:
    """The `usage` object: each prompt counted once, the tokens of every choice."""
    drawn = sum(choice.usage.completion_tokens for choice in choices if choice.usage)
    first_of_each = choices[:: max(1, len(choices) // len(prompts))]
    cached = sum(choice.usage.cached_tokens for choice in first_of_each if choice.usage)
    given = sum(map(len, prompts))
    return {
        "prompt_tokens": given,
        "completion_tokens": drawn,
        "total_tokens": given + drawn,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def draw_all(job: Job, meter: Meter) -> list[Choice]:
    """Every choice, complete."""
    choices = [Choice() for _ in range(len(job.prompts) * job.n)]
    async with aclosing(draw(job, meter)) as deltas:
        async for number, delta in deltas:
            choices[number].add(delta)
    return choices
