"""Answers as they grow: from messages or ids to pieces of text, with stop strings, ids, log-probabilities and usage.

The API's routes and the chat room use the same two generators, `chat_stream` and `text_stream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from causerie.core import CauserieError
from causerie.infer import Event, Grammar, Sampling
from causerie.serve.errors import engine_failed
from causerie.serve.gate import Asking
from causerie.serve.metering import Meter
from causerie.serve.pool import EnginePool, Served, ServedVersion
from causerie.text import StopStrings, StreamDecoder

LONG_TEXT: Final = 20_000
"""Characters above which text is encoded in a thread, so that other answers go on meanwhile."""

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class AnswerParams:
    """How an answer is drawn; the fields of `causerie.infer.Sampling` that a caller may set."""

    max_tokens: int | None = None
    """None: as many as the model's length leaves; 0 draws nothing."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = True
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    grammar: Grammar | None = None


Alternatives = Sequence[Sequence[tuple[int, float]]]
"""For each token the likeliest ids with their log-probabilities."""


@dataclass(frozen=True)
class Usage:
    """Tokens of a finished answer; `cached_tokens` of the prompt were already in the engine."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class ChatDelta:
    """What was added to an answer.

    Attributes:
        text: text to append; may be empty while a character or a possible stop string is not complete.
        ids: token ids the model drew, a final stop id included.
        logprobs: their log-probabilities at temperature 1, when asked for.
        version: the version that answers; the same in every delta.
        finish: in the last delta, why it ended: "stop" (end of turn or stop string) or "length".
        usage: in the last delta.
        top_logprobs: for each id the likeliest ids, when asked for.
        prompt_logprobs, prompt_top_logprobs: of the prompt's tokens, in the first delta, when asked for.
    """

    text: str
    ids: Sequence[int]
    logprobs: Sequence[float]
    version: ServedVersion
    finish: Finish | None = None
    usage: Usage | None = None
    top_logprobs: Alternatives = ()
    prompt_logprobs: Sequence[float | None] | None = None
    prompt_top_logprobs: Alternatives | None = None


async def chat_stream(
    pool: EnginePool,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    params: AnswerParams,
    meter: Meter | None = None,
    begun: Sequence[int] = (),
) -> AsyncGenerator[ChatDelta, None]:
    """The assistant's next answer in a conversation, as it grows.

    Closing the generator, or cancelling the task that reads it, stops the engine's work on it. The version that is
    served when the first delta is asked for answers to the end, also when another is promoted meanwhile.

    Args:
        pool: the served models.
        model: `name` or `name@N`.
        messages: `{"role", "content"}` in order.
        params: how to draw.
        meter: counts the request; its `key_id` (of a signed-in person: theirs) also keeps callers' cached prompts
            apart and says who shares the engine fairly with whom. None counts nothing.
        begun: token ids of the answer so far, to go on with one that was cut.

    Raises:
        CauserieError: CAU-6003 for an unknown model, CAU-6005 for one that cannot chat, CAU-1204 for a malformed
            conversation, CAU-6010 for one that is too long, CAU-6006 when the server is full, CAU-6004 when the
            engine fails.
    """
    async with pool.lease(model) as served:
        chat = served.need_chat()
        prompt = await off_loop(chat.prompt, messages, size=sum(len(str(m.get("content"))) for m in messages))
        prompt = [*prompt, *begun]
        meter = meter or Meter(None, "chat", None)
        most = sampling_for(served, len(prompt), params, chat.stop_ids).max_tokens
        salt = meter.key_id or ""
        async with pool.gate.admit(Asking(tenant=salt or "page"), 1, len(prompt) + most, served.lane, meter):
            stream = text_stream(served, prompt, params, chat.stop_ids, salt=salt)
            with meter:
                async with aclosing(stream):
                    async for delta in stream:
                        meter.count(delta, 0 if meter.version else len(prompt))
                        yield delta


async def text_stream(
    served: Served,
    prompt: Sequence[int],
    params: AnswerParams,
    stop_ids: Sequence[int],
    *,
    salt: str = "",
    sampling: Sampling | None = None,
) -> AsyncGenerator[ChatDelta, None]:
    """A completion of prompt ids, as it grows; see `chat_stream`. The caller holds the lease on `served`.

    `sampling` is what `sampling_for` makes of the others, when the caller has it already.
    """
    sampling = sampling or sampling_for(served, len(prompt), params, stop_ids)
    if params.max_tokens == 0 and not params.prompt_logprobs:
        yield ChatDelta("", [], [], served.version, "length", Usage(len(prompt), 0))
        return
    decoder, stops = StreamDecoder(served.tokenizer), StopStrings(params.stop)
    generated = served.engine.generate(list(prompt), sampling, salt=salt)
    async with aclosing(cast(AsyncGenerator[Event, None], generated)) as events:
        async for event in events:
            if params.max_tokens == 0:
                event = replace(event, ids=[], logprobs=[], top_logprobs=[], finish="length", completion_tokens=0)
            text = stops.push(decoder.push(event.ids))
            finish = _finish(event)
            if finish and not stops.stopped:
                text += stops.push(decoder.finish())
                text += stops.finish()
            if stops.stopped:
                finish = "stop"
            usage = Usage(event.prompt_tokens, event.completion_tokens, event.cached_tokens) if finish else None
            yield ChatDelta(
                text.replace("\0", "\ufffd"),  # no database keeps U+0000, and no client expects it
                event.ids,
                event.logprobs,
                served.version,
                finish,
                usage,
                event.top_logprobs,
                event.prompt_logprobs,
                event.prompt_top_logprobs,
            )
            if finish:
                return
    raise engine_failed("it ended without a last event")


def _finish(event: Event) -> Finish | None:
    if event.finish == "error" or event.finish == "cancelled":
        raise engine_failed("the request was cancelled" if event.finish == "cancelled" else "see the server's log")
    return event.finish


def sampling_for(served: Served, prompt_length: int, params: AnswerParams, stop_ids: Sequence[int]) -> Sampling:
    """The engine's settings, with `max_tokens` cut to what the model's length leaves after the prompt.

    Raises:
        CauserieError: CAU-6010 when the prompt leaves no room, CAU-3102 when a setting is out of range.
    """
    room = served.max_seq_len - prompt_length
    if prompt_length < 1 or room < 1:
        raise CauserieError(
            "CAU-6010",
            f"the prompt has {prompt_length} tokens; this model takes 1 to {served.max_seq_len - 1}",
            where="messages",
            fix="shorten the conversation",
        )
    wanted = room if params.max_tokens is None else max(1, min(params.max_tokens, room))
    return Sampling(
        max_tokens=wanted,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        stop_ids=tuple(stop_ids),
        seed=params.seed,
        logprobs=params.logprobs,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        logit_bias=params.logit_bias,
        top_logprobs=params.top_logprobs,
        prompt_logprobs=params.prompt_logprobs,
        grammar=params.grammar,
        adapter=served.adapter,
    )


async def off_loop(work: Any, *arguments: Any, size: int) -> Any:
    """Call a function, in a thread when the text it works on is long."""
    return await asyncio.to_thread(work, *arguments) if size > LONG_TEXT else work(*arguments)


def with_seed(params: AnswerParams, seed: int | None) -> AnswerParams:
    """The same parameters with another seed."""
    return replace(params, seed=seed)
