"""Request bodies as pydantic models: strict types, every number and length bounded, unknown fields refused.

Fields that clients send out of habit and that change nothing here (`user`, `metadata`, ...) are accepted. Fields that
would change the answer and are not served (audio, web search, ...) are refused, never ignored, unless the server is
lenient; then they are named in the answer's header `x-causerie-ignored`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from causerie.serve.answer import AnswerParams
from causerie.serve.limits import (
    MAX_BEST_OF,
    MAX_BIASES,
    MAX_BODY,
    MAX_CHOICES,
    MAX_METADATA,
    MAX_NAME,
    MAX_PROMPTS,
    MAX_SCHEMA,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    MAX_TEXT,
    MAX_TOKENS,
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
)
from causerie.serve.tools import InputFormat

INT64: Final = 2**63


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("U+0000 is not allowed in text")
    return text


def _is_off(value: Any) -> Any:
    if value not in (None, False, [], {}, "none", 0):
        raise PydanticCustomError("not_served", "this is not supported by this server")
    return value


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(_no_nul)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME), AfterValidator(_no_nul)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_LENGTH), AfterValidator(_no_nul)]
Short = Annotated[str, StringConstraints(max_length=MAX_NAME), AfterValidator(_no_nul)]
Number = Annotated[float, Field(allow_inf_nan=False)]
TopP = Annotated[Number, Field(ge=0, le=1)]
"""Share of the probability to draw from; 0 leaves the likeliest token alone."""
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Unsupported = Annotated[Any, AfterValidator(_is_off)]
"""A field that may be present only with a value that means "off"."""


class Strict(BaseModel):
    """No unknown fields, no silent conversions."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TextFormat(Strict):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Some JSON object."""

    type: Literal["json_object"]


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64), AfterValidator(_no_nul)],
        Annotated[str, StringConstraints(max_length=512), AfterValidator(_no_nul)],
    ],
    Field(max_length=MAX_METADATA),
]
"""Sixteen pairs at most that callers keep with an object."""
FilePurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


def _small(value: dict[str, Any]) -> dict[str, Any]:
    try:
        length = len(json.dumps(value))
    except (ValueError, RecursionError) as error:
        raise ValueError("the schema is nested too deeply") from error
    if length > MAX_SCHEMA:
        raise ValueError(f"the schema is longer than {MAX_SCHEMA} characters")
    return value


Schema = Annotated[dict[str, Any], AfterValidator(_small)]
"""A JSON schema; what it says is checked where it is compiled."""
Plain = Annotated[dict[str, Any], AfterValidator(_small)]
"""A JSON object of the caller's own making."""
FunctionName = Annotated[str, StringConstraints(pattern=r"\A[a-zA-Z0-9_.-]{1,64}$")]
AllowedTools = Annotated[list[Plain], Field(max_length=MAX_TOOLS)]
"""The tools that may be called, each described as far as the caller likes; its name counts."""
Definition = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SCHEMA), AfterValidator(_no_nul)]
"""The text of a grammar; what it says is checked where it is compiled."""


class GrammarText(Strict):
    """A grammar for the input of a custom tool."""

    syntax: Literal["lark", "regex"]
    definition: Definition

    def as_format(self) -> InputFormat:
        """It as the tools' room knows it."""
        return InputFormat(self.syntax, self.definition)


FileData = Annotated[str, StringConstraints(min_length=1, max_length=MAX_BODY), AfterValidator(_no_nul)]
"""A file's content in base64, as a data URL or bare."""


class FileExpiry(Strict):
    """When a file is deleted by itself."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=30 * 24 * 3600)]


class MetadataRequest(Strict):
    """POST to an object of which only the metadata can change."""

    metadata: Metadata | None = None


class StreamOptions(Strict):
    """What a stream carries besides the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def _needs_stream(value: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
    if value is not None and not info.data.get("stream"):
        raise PydanticCustomError("not_served", "stream_options is allowed only with stream = true")
    return value


class Drawing(Strict):
    """What chat and plain completions have in common."""

    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: Annotated[StreamOptions | None, AfterValidator(_needs_stream)] = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[Short, Annotated[Number, Field(ge=-100, le=100)]] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    user: Short | None = None

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and len(value) > MAX_BIASES:
            raise ValueError(f"at most {MAX_BIASES} tokens can be biased")
        for key in value or {}:
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                raise PydanticCustomError("not_served", "{key} is not a token id", {"key": repr(key[:20])})
        return value

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


class CompletionRequest(Drawing):
    """POST v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]],
            Field(min_length=1, max_length=MAX_PROMPTS),
        ]
    )
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """Give each token's log-probability, and so many of the likeliest tokens beside it."""
    best_of: Annotated[int, Field(ge=0, le=MAX_BEST_OF)] | None = None
    """Draw so many and give the `n` likeliest; 0 is as none."""
    suffix: Text | None = None
    """What comes after the gap that is to be filled."""

    @model_validator(mode="after")
    def _bounded(self) -> CompletionRequest:
        if self.best_of and self.best_of < (self.n or 1):
            raise ValueError("best_of is less than n")
        if self.best_of and self.best_of > (self.n or 1) and self.stream:
            raise ValueError("a stream cannot be the best of several: leave out best_of or stream")
        if len(self.prompts()) * self.drawn > MAX_CHOICES:
            raise ValueError(f"at most {MAX_CHOICES} answers (prompts times n) can be drawn at once")
        return self

    @property
    def drawn(self) -> int:
        """Answers drawn for each prompt, of which the best `n` are given."""
        return max(self.n or 1, self.best_of or 1)

    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list, each a text or token ids."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            return [given]
        return list(given)

    def answer_params(self) -> AnswerParams:
        """The answer's parameters; 16 tokens by default, as the OpenAI API has it."""
        most = 16 if self.max_tokens is None else self.max_tokens
        params = self.params(most, self.logprobs is not None or self.drawn > (self.n or 1))
        given = bool(self.echo) and self.logprobs is not None
        return replace(params, top_logprobs=self.logprobs or 0, prompt_logprobs=given)
