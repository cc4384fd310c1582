"""Request bodies as pydantic models: strict types, every number and length bounded, unknown fields refused.

Fields that clients send out of habit and that change nothing here (`user`, `metadata`, ...) are accepted. Fields that
would change the answer and are not served (tools, images, `top_logprobs`, ...) are refused, never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from causerie.serve.answer import AnswerParams
from causerie.serve.limits import (
    MAX_BIASES,
    MAX_CHOICES,
    MAX_MESSAGES,
    MAX_NAME,
    MAX_PROMPTS,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    MAX_TEXT,
    MAX_TOKENS,
)

INT64: Final = 2**63


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("U+0000 is not allowed in text")
    return text


def _is_off(value: Any) -> Any:
    if value not in (None, False, [], {}, "none", 0):
        raise ValueError("this is not supported by this server")
    return value


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(_no_nul)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME), AfterValidator(_no_nul)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_LENGTH), AfterValidator(_no_nul)]
Short = Annotated[str, StringConstraints(max_length=MAX_NAME), AfterValidator(_no_nul)]
Number = Annotated[float, Field(allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Unsupported = Annotated[Any, AfterValidator(_is_off)]
"""A field that may be present only with a value that means "off"."""


class Strict(BaseModel):
    """No unknown fields, no silent conversions."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TextPart(Strict):
    """A part of a message's content; texts only."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
    name: Short | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Unsupported = None

    def as_message(self) -> dict[str, str]:
        """Role and text; "developer" is what newer clients call "system"."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class StreamOptions(Strict):
    """What a stream carries besides the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(Strict):
    """Plain text only."""

    type: Literal["text"]


class Drawing(Strict):
    """What chat and plain completions have in common."""

    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[Short, Annotated[Number, Field(ge=-100, le=100)]] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    user: Short | None = None

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and len(value) > MAX_BIASES:
            raise ValueError(f"at most {MAX_BIASES} tokens can be biased")
        for key in value or {}:
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                raise ValueError(f"{key[:20]!r} is not a token id")
        return value

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Drawing:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is allowed only with stream = true")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk of usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def params(self, max_tokens: int | None, logprobs: bool) -> AnswerParams:
        """The answer's parameters; absent ones take the OpenAI API's defaults."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        bias = tuple((int(token), value) for token, value in (self.logit_bias or {}).items())
        return AnswerParams(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            stop=stop,
            seed=self.seed,
            logprobs=logprobs,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=bias,
        )


class ChatCompletionRequest(Drawing):
    """POST v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Unsupported = None
    response_format: ResponseFormat | None = None
    metadata: dict[Short, Short] | None = None
    service_tier: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    tools: Unsupported = None
    tool_choice: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None

    def answer_params(self) -> AnswerParams:
        """The answer's parameters; `max_completion_tokens` wins over its older name `max_tokens`."""
        return self.params(self.max_completion_tokens or self.max_tokens, bool(self.logprobs))


class CompletionRequest(Drawing):
    """POST v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    """0 gives the log-probability of each token drawn; alternatives are not served."""
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    suffix: Unsupported = None

    @model_validator(mode="after")
    def _bounded(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is supported only where it equals n")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo together with logprobs is not supported by this server")
        if len(self.prompts()) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(f"at most {MAX_CHOICES} answers (prompts times n) can be drawn at once")
        return self

    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list, each a text or token ids."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            return [given]
        return list(given)

    def answer_params(self) -> AnswerParams:
        """The answer's parameters; 16 tokens by default, as the OpenAI API has it."""
        return self.params(self.max_tokens or 16, self.logprobs is not None)
