"""The body of POST v1/chat/completions: messages, tools, formats of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from causerie.serve.answer import AnswerParams
from causerie.serve.limits import MAX_MESSAGES, MAX_TOKENS, MAX_TOOLS, MAX_TOP_LOGPROBS
from causerie.serve.shapes import (
    AllowedTools,
    Drawing,
    FileData,
    FunctionName,
    GrammarText,
    JsonObjectFormat,
    Metadata,
    Name,
    Schema,
    Short,
    Strict,
    Text,
    TextFormat,
    Unsupported,
)
from causerie.serve.tools import Chosen, Tool, ToolUse


class TextPart(Strict):
    """A part of a message's content that is text."""

    type: Literal["text"]
    text: Text


class RefusalPart(Strict):
    """An assistant's refusal among the parts of its message."""

    type: Literal["refusal"]
    refusal: Text


class GivenFile(Strict):
    """A file of the project, or one that comes with the request."""

    file_id: Name | None = None
    file_data: FileData | None = None
    filename: Short | None = None

    @model_validator(mode="after")
    def _one(self) -> GivenFile:
        if (self.file_id is None) == (self.file_data is None):
            raise ValueError("a file needs file_id or file_data")
        return self


class FilePart(Strict):
    """A file among the parts of a message: its text is put before the model."""

    type: Literal["file"]
    file: GivenFile


Parts = Annotated[list[TextPart | RefusalPart | FilePart], Field(min_length=1, max_length=64)]


class CalledFunction(Strict):
    """Which function the assistant called, and the JSON text of its arguments."""

    name: FunctionName
    arguments: Text


class CalledCustom(Strict):
    """Which custom tool the assistant called, and its input."""

    name: FunctionName
    input: Text


class FunctionCall(Strict):
    """A call of a function that the assistant made in an earlier turn."""

    id: Short
    type: Literal["function"]
    function: CalledFunction
    index: Annotated[int, Field(ge=0, le=MAX_TOOLS)] | None = None


class CustomCall(Strict):
    """A call of a custom tool that the assistant made in an earlier turn."""

    id: Short
    type: Literal["custom"]
    custom: CalledCustom
    index: Annotated[int, Field(ge=0, le=MAX_TOOLS)] | None = None


ToolCall = Annotated[FunctionCall | CustomCall, Field(discriminator="type")]


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Parts | None = None
    name: Short | None = None
    refusal: Text | None = None
    audio: None = None
    annotations: list[Any] | None = Field(default=None, max_length=64)
    function_call: CalledFunction | None = None
    """The older form of a call, for which a message of the role function is the answer."""
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Short | None = None

    @model_validator(mode="after")
    def _whole(self) -> ChatMessage:
        called = self.tool_calls or self.function_call
        silent = self.role == "function" or (self.role == "assistant" and (called or self.refusal))
        if self.content is None and not silent:
            raise ValueError("the message has no content")
        if called and self.role != "assistant":
            raise ValueError("only assistant messages have tool_calls or function_call")
        if self.role == "function" and self.name is None:
            raise ValueError("messages of the role function need a name")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("tool_call_id belongs to messages of the role tool, and they need it")
        return self

    @property
    def text(self) -> str:
        """The text of all parts; files have none before `with_texts`."""
        if isinstance(self.content, str) or self.content is None:
            return self.content or self.refusal or ""
        texts = [part for part in self.content if not isinstance(part, FilePart)]
        return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in texts)

    @property
    def files(self) -> list[GivenFile]:
        """The files in it, in order."""
        parts = self.content if isinstance(self.content, list) else ()
        return [part.file for part in parts if isinstance(part, FilePart)]

    def with_texts(self, texts: Iterator[str]) -> ChatMessage:
        """The message with the next texts in the place of its files."""
        if not self.files:
            return self
        assert isinstance(self.content, list)
        parts = [
            TextPart(type="text", text=next(texts)) if isinstance(part, FilePart) else part for part in self.content
        ]
        return self.model_copy(update={"content": parts})

    def as_message(self) -> dict[str, Any]:
        """Role, text and calls; "developer" is what newer clients call "system", "function" what older ones "tool"."""
        role = {"developer": "system", "function": "tool"}.get(self.role, self.role)
        plain: dict[str, Any] = {"role": role, "content": self.text}
        if self.function_call:
            plain["tool_calls"] = [self.function_call.model_dump()]
        if self.tool_calls:
            called = [call.custom if isinstance(call, CustomCall) else call.function for call in self.tool_calls]
            plain["tool_calls"] = [each.model_dump() for each in called]
        return plain


class Function(Strict):
    """A function that the model may call."""

    name: FunctionName
    description: Text | None = None
    parameters: Schema | None = None
    strict: bool | None = None

    def as_tool(self) -> Tool:
        """It as the tools' room knows it."""
        return Tool(self.name, self.description, self.parameters)


class FunctionTool(Strict):
    """A function as a tool."""

    type: Literal["function"]
    function: Function

    def as_tool(self) -> Tool:
        """It as the tools' room knows it."""
        return self.function.as_tool()


class GrammarFormat(Strict):
    """A custom tool's input keeps to a grammar."""

    type: Literal["grammar"]
    grammar: GrammarText


class Custom(Strict):
    """A tool that takes plain text, free or in a format."""

    name: FunctionName
    description: Text | None = None
    format: Annotated[TextFormat | GrammarFormat, Field(discriminator="type")] | None = None


class CustomTool(Strict):
    """A custom tool."""

    type: Literal["custom"]
    custom: Custom

    def as_tool(self) -> Tool:
        """It as the tools' room knows it."""
        asked = self.custom.format
        format = asked.grammar.as_format() if isinstance(asked, GrammarFormat) else None
        return Tool(self.custom.name, self.custom.description, custom=True, format=format)


class ToolName(Strict):
    """The name of a tool."""

    name: FunctionName

    def chosen(self) -> Chosen:
        """It as the tools' room knows it."""
        return Chosen((self.name,))


class NamedFunction(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    function: ToolName

    def chosen(self) -> Chosen:
        """It as the tools' room knows it."""
        return Chosen((self.function.name,))


class NamedCustom(Strict):
    """The one custom tool that must be called."""

    type: Literal["custom"]
    custom: ToolName

    def chosen(self) -> Chosen:
        """It as the tools' room knows it."""
        return Chosen((self.custom.name,))


class Allowed(Strict):
    """Some of the tools, of which one may, or must, be called."""

    mode: Literal["auto", "required"]
    tools: AllowedTools


class AllowedChoice(Strict):
    """All tools are told, some may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: Allowed

    def chosen(self) -> Chosen:
        """It as the tools' room knows it."""
        kinds = [(tool, tool.get("type")) for tool in self.allowed_tools.tools]
        inner = [tool.get(kind) if kind in ("function", "custom") else None for tool, kind in kinds]
        names = tuple(each.get("name") if isinstance(each, dict) else None for each in inner)
        return Chosen(names, required=self.allowed_tools.mode == "required", others=True)


NamedChoice = Annotated[NamedFunction | NamedCustom | AllowedChoice, Field(discriminator="type")]
ToolChoice = Literal["none", "auto", "required"] | NamedChoice


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
    tools: Annotated[list[FunctionTool | CustomTool], Field(max_length=MAX_TOOLS)] | None = None
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
    functions: Annotated[list[Function], Field(max_length=MAX_TOOLS)] | None = None
    """The older form of tools, as `function_call` is that of `tool_choice`; `tools` wins over it."""
    function_call: Literal["none", "auto"] | ToolName | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs = true")
        self.tool_use()
        return self

    @property
    def in_old_form(self) -> bool:
        """Whether calls are answered as the older `function_call`."""
        return self.tools is None and bool(self.functions)

    def tool_use(self) -> ToolUse:
        """What the request says about tools.

        Raises:
            ValueError: when it contradicts itself.
        """
        old = self.tools is None and (self.functions is not None or self.function_call is not None)
        if old and self.tool_choice is not None:
            raise ValueError("tool_choice needs tools; functions, their older form, have function_call")
        choice = self.function_call if old else self.tool_choice
        chosen = choice if choice is None or isinstance(choice, str) else choice.chosen()
        tools = [tool.as_tool() for tool in (self.functions if old else self.tools) or ()]
        return ToolUse.of(tools, chosen, old or self.parallel_tool_calls is False)

    def answer_params(self) -> AnswerParams:
        """The answer's parameters; `max_completion_tokens` wins over its older name `max_tokens`."""
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return replace(self.params(most, bool(self.logprobs)), top_logprobs=self.top_logprobs or 0)
