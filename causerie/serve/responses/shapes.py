"""The body of POST v1/responses, and the items that it and conversations are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from causerie.serve.limits import MAX_ITEMS, MAX_TOKENS, MAX_TOOLS, MAX_TOP_LOGPROBS
from causerie.serve.shapes import (
    AllowedTools,
    FileData,
    FunctionName,
    GrammarText,
    JsonObjectFormat,
    Metadata,
    Name,
    Number,
    Schema,
    Short,
    Strict,
    Text,
    TextFormat,
    TopP,
    Unsupported,
)
from causerie.serve.tools import Chosen, Tool, ToolUse

Status = Literal["in_progress", "completed", "incomplete"]


class ContentPart(Strict):
    """A part of a message: text, or a file whose text is put before the model."""

    type: Literal["input_text", "output_text", "text", "refusal", "summary_text", "input_file"]
    text: Text = ""
    file_id: Name | None = None
    file_data: FileData | None = None
    filename: Short | None = None
    refusal: Text | None = None
    annotations: list[Any] | None = Field(default=None, max_length=256)
    logprobs: list[Any] | None = Field(default=None, max_length=MAX_TOKENS)

    @model_validator(mode="after")
    def _file(self) -> ContentPart:
        given = [value is not None for value in (self.file_id, self.file_data)]
        if self.type == "input_file" and sum(given) != 1:
            raise ValueError("a file needs file_id or file_data")
        if self.type != "input_file" and (any(given) or self.filename is not None):
            raise ValueError("only parts of the type input_file have a file")
        return self

    @property
    def said(self) -> str:
        """Its text."""
        return self.refusal if self.type == "refusal" and self.refusal is not None else self.text


Parts = Annotated[list[ContentPart], Field(max_length=256)]


class MessageItem(Strict):
    """A message; `type` may be left out."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Parts
    id: Name | None = None
    status: Status | None = None
    phase: Short | None = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        return self.content if isinstance(self.content, str) else "".join(part.said for part in self.content)


class CallItem(Strict):
    """A function call that the model made."""

    type: Literal["function_call"]
    call_id: Name
    name: FunctionName
    arguments: Text
    id: Name | None = None
    status: Status | None = None


class CallOutputItem(Strict):
    """What a function gave."""

    type: Literal["function_call_output"]
    call_id: Name
    output: Text | Parts
    id: Name | None = None
    status: Status | None = None

    @property
    def text(self) -> str:
        """The text of all parts."""
        return self.output if isinstance(self.output, str) else "".join(part.said for part in self.output)


class CustomCallItem(Strict):
    """A call of a custom tool that the model made."""

    type: Literal["custom_tool_call"]
    call_id: Name
    name: FunctionName
    input: Text
    id: Name | None = None
    status: Status | None = None


class CustomOutputItem(Strict):
    """What a custom tool gave."""

    type: Literal["custom_tool_call_output"]
    call_id: Name
    output: Text | Parts
    id: Name | None = None
    status: Status | None = None


class ReasoningItem(Strict):
    """Reasoning of another server's model; it is kept, and the model does not see it."""

    type: Literal["reasoning"]
    id: Name | None = None
    summary: Parts | None = None
    content: list[Any] | None = Field(default=None, max_length=256)
    encrypted_content: Text | None = None
    status: Status | None = None


class CompactionItem(Strict):
    """A summary that `responses/compact` made."""

    type: Literal["compaction"]
    encrypted_content: Text
    id: Name | None = None


class ReferenceItem(Strict):
    """An item that was said before, by its id."""

    type: Literal["item_reference"] | None = "item_reference"
    id: Name


def _kind(value: Any) -> str:
    """What an item is; without a type it is a message, or, with nothing but an id, a reference."""
    if not isinstance(value, dict):
        return str(getattr(value, "type", "message"))
    only_an_id = "id" in value and value.keys() <= {"id", "type"}
    return str(value.get("type") or ("item_reference" if only_an_id else "message"))


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[CustomOutputItem, Tag("custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[CompactionItem, Tag("compaction")]
    | Annotated[ReferenceItem, Tag("item_reference")],
    Discriminator(_kind),
]
Items = Annotated[list[Item], Field(max_length=MAX_ITEMS)]


class FunctionTool(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: Text | None = None
    parameters: Schema | None = None
    strict: bool | None = None

    def as_tool(self) -> Tool:
        """It as the tools' room knows it."""
        return Tool(self.name, self.description, self.parameters)


class GrammarFormat(GrammarText):
    """A custom tool's input keeps to a grammar."""

    type: Literal["grammar"]


class CustomTool(Strict):
    """A tool that takes plain text, free or in a format."""

    type: Literal["custom"]
    name: FunctionName
    description: Text | None = None
    format: Annotated[TextFormat | GrammarFormat, Field(discriminator="type")] | None = None

    def as_tool(self) -> Tool:
        """It as the tools' room knows it."""
        format = self.format.as_format() if isinstance(self.format, GrammarFormat) else None
        return Tool(self.name, self.description, custom=True, format=format)


class NamedTool(Strict):
    """The one tool that must be called."""

    type: Literal["function", "custom"]
    name: FunctionName

    def chosen(self) -> Chosen:
        """It as the tools' room knows it."""
        return Chosen((self.name,))


class AllowedChoice(Strict):
    """All tools are told, some may, or one of them must, be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: AllowedTools

    def chosen(self) -> Chosen:
        """It as the tools' room knows it."""
        known = [tool.get("name") if tool.get("type") in ("function", "custom") else None for tool in self.tools]
        return Chosen(tuple(known), required=self.mode == "required", others=True)


Tools = Annotated[list[FunctionTool | CustomTool], Field(max_length=MAX_TOOLS)]


class JsonSchemaFormat(Strict):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    name: FunctionName
    schema_: Schema = Field(validation_alias=AliasChoices("schema", "schema_"), serialization_alias="schema")
    description: Text | None = None
    strict: bool | None = None


Format = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class TextConfig(Strict):
    """What the answer's text is like."""

    format: Format | None = None
    verbosity: Short | None = None


class ConversationRef(Strict):
    """A conversation by its id."""

    id: Name


class StreamOptions(Strict):
    """What a stream carries besides."""

    include_obfuscation: bool | None = None


class InputRequest(Strict):
    """What a response is made from; all of POST v1/responses/input_tokens."""

    model: Name | None = None
    """The first model being served where it is left out."""
    input: Text | Items | None = None
    instructions: Text | None = None
    conversation: Name | ConversationRef | None = None
    previous_response_id: Name | None = None
    tools: Tools | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedChoice | None = None
    text: TextConfig | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[Short, Any] | None = Field(default=None, max_length=8)
    truncation: Literal["auto", "disabled"] | None = None
    """auto leaves out the oldest items when the model's length is exceeded; disabled refuses."""
    personality: Short | None = None

    @field_validator("previous_response_id")
    @classmethod
    def _one_history(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("conversation") is not None:
            raise PydanticCustomError("not_served", "give a conversation or a previous response, not both")
        return value

    @model_validator(mode="after")
    def _known_tool(self) -> InputRequest:
        self.tool_use()
        return self

    def tool_use(self) -> ToolUse:
        """What the request says about tools.

        Raises:
            ValueError: when it contradicts itself.
        """
        choice = self.tool_choice
        chosen = choice if choice is None or isinstance(choice, str) else choice.chosen()
        return ToolUse.of([tool.as_tool() for tool in self.tools or ()], chosen, self.parallel_tool_calls is False)

    @property
    def conversation_id(self) -> str | None:
        """The conversation's id."""
        return self.conversation.id if isinstance(self.conversation, ConversationRef) else self.conversation

    def items(self) -> list[Any]:
        """The input as items."""
        if isinstance(self.input, str):
            return [MessageItem(role="user", content=self.input)]
        return list(self.input or ())


class ResponseRequest(InputRequest):
    """POST v1/responses."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    max_output_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    include: Annotated[list[Short], Field(max_length=16)] | None = None
    service_tier: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: Unsupported = None
    user: Short | None = None
    prompt: Unsupported = None
    moderation: Unsupported = None
    context_management: Unsupported = None


class CompactRequest(Strict):
    """POST v1/responses/compact."""

    model: Name
    input: Text | Items | None = None
    instructions: Text | None = None
    previous_response_id: Name | None = None
    prompt_cache_key: Short | None = None
    prompt_cache_retention: Short | None = None
    service_tier: Short | None = None
    prompt_cache_options: Unsupported = None
    image: Unsupported = None
