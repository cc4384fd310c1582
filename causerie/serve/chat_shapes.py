"""The body of POST v1/chat/completions: messages, tools, formats of the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from causerie.serve.answer import AnswerParams
from causerie.serve.limits import MAX_MESSAGES, MAX_TOKENS, MAX_TOOLS, MAX_TOP_LOGPROBS
from causerie.serve.shapes import (
    Drawing,
    FunctionName,
    JsonObjectFormat,
    Metadata,
    Schema,
    Short,
    Strict,
    Text,
    TextFormat,
    Unsupported,
)


class TextPart(Strict):
    """A part of a message's content; texts only."""

    type: Literal["text"]
    text: Text


class RefusalPart(Strict):
    """An assistant's refusal among the parts of its message."""

    type: Literal["refusal"]
    refusal: Text


Parts = Annotated[list[TextPart | RefusalPart], Field(min_length=1, max_length=64)]


class CalledFunction(Strict):
    """Which function the assistant called, and the JSON text of its arguments."""

    name: FunctionName
    arguments: Text


class ToolCall(Strict):
    """A call that the assistant made in an earlier turn."""

    id: Short
    type: Literal["function"]
    function: CalledFunction
    index: Annotated[int, Field(ge=0, le=MAX_TOOLS)] | None = None


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Parts | None = None
    name: Short | None = None
    refusal: Text | None = None
    audio: None = None
    annotations: list[Any] | None = Field(default=None, max_length=64)
    function_call: None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Short | None = None

    @model_validator(mode="after")
    def _whole(self) -> ChatMessage:
        if self.content is None and not (self.role == "assistant" and (self.tool_calls or self.refusal)):
            raise ValueError("the message has no content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only assistant messages have tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("tool_call_id belongs to messages of the role tool, and they need it")
        return self

    @property
    def text(self) -> str:
        """The text of all parts."""
        if isinstance(self.content, str) or self.content is None:
            return self.content or self.refusal or ""
        return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in self.content)

    def as_message(self) -> dict[str, Any]:
        """Role, text and calls; "developer" is what newer clients call "system"."""
        plain: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": self.text}
        if self.tool_calls:
            plain["tool_calls"] = [call.function.model_dump() for call in self.tool_calls]
        return plain


class Function(Strict):
    """A function that the model may call."""

    name: FunctionName
    description: Text | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    """A tool; functions only."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """The name of a function."""

    name: FunctionName


class NamedTool(Strict):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class JsonSchema(Strict):
    """What the answer must match."""

    name: FunctionName
    description: Text | None = None
    schema_: Schema | None = Field(
        default=None, validation_alias=AliasChoices("schema", "schema_"), serialization_alias="schema"
    )
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ChatCompletionRequest(Drawing):
    """POST v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    modalities: list[Literal["text"]] | None = Field(default=None, max_length=1)
    service_tier: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Short | None = None
    prompt_cache_options: dict[Short, Any] | None = Field(default=None, max_length=8)
    reasoning_effort: Short | None = None
    verbosity: Short | None = None
    prediction: dict[Short, Any] | None = Field(default=None, max_length=8)
    audio: Unsupported = None
    moderation: Unsupported = None
    web_search_options: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs = true")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if self.tool_choice not in (None, "none") and not names:
            raise ValueError("tool_choice needs tools")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise ValueError("tool_choice names a tool that is not among tools")
        return self

    def answer_params(self) -> AnswerParams:
        """The answer's parameters; `max_completion_tokens` wins over its older name `max_tokens`."""
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return replace(self.params(most, bool(self.logprobs)), top_logprobs=self.top_logprobs or 0)
