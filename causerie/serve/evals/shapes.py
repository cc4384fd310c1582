"""Bodies of v1/evals: where items come from, how answers to them are got, what judges them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from causerie.serve.chat_shapes import FunctionTool, ResponseFormat
from causerie.serve.graders.shapes import (
    GraderMessage,
    LabelModel,
    PythonGrader,
    ScoreModel,
    StringCheck,
    TextSimilarity,
)
from causerie.serve.limits import MAX_CRITERIA, MAX_TOKENS
from causerie.serve.responses.shapes import TextConfig
from causerie.serve.shapes import INT64, Metadata, Name, Number, Plain, Short, Strict, TopP

MAX_ROWS = 10_000
Criterion = Annotated[
    StringCheck | TextSimilarity | ScoreModel | LabelModel | PythonGrader, Field(discriminator="type")
]
Moment = Annotated[int, Field(ge=0, lt=2**40)]


class CustomConfig(Strict):
    """Items of the caller's own shape."""

    type: Literal["custom"]
    item_schema: Plain
    include_sample_schema: bool | None = None


class LogsConfig(Strict):
    """Items from what was said here."""

    type: Literal["logs", "stored_completions"]
    metadata: Plain | None = None


class EvalRequest(Strict):
    """POST v1/evals."""

    data_source_config: Annotated[CustomConfig | LogsConfig, Field(discriminator="type")]
    testing_criteria: Annotated[list[Criterion], Field(min_length=1, max_length=MAX_CRITERIA)]
    name: Short | None = None
    metadata: Metadata | None = None


class EvalUpdate(Strict):
    """POST v1/evals/{id}."""

    name: Short | None = None
    metadata: Metadata | None = None


class ContentRow(Strict):
    """An item, and an answer to it where there is one already."""

    item: Plain
    sample: Plain | None = None


class FileContent(Strict):
    """Items in the request itself."""

    type: Literal["file_content"]
    content: Annotated[list[ContentRow], Field(min_length=1, max_length=MAX_ROWS)]


class FileId(Strict):
    """Items in an uploaded file."""

    type: Literal["file_id"]
    id: Name


class Stored(Strict):
    """Items from stored answers: `input` (messages) and `output`."""

    type: Literal["stored_completions", "responses"]
    created_after: Moment | None = None
    created_before: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    metadata: Metadata | None = None
    model: Name | None = None


Source = Annotated[FileContent | FileId | Stored, Field(discriminator="type")]


class Template(Strict):
    """Messages with slots such as `{{item.question}}`."""

    type: Literal["template"]
    template: Annotated[list[GraderMessage], Field(min_length=1, max_length=256)]


class ItemReference(Strict):
    """Messages that the items hold, such as `item.input`."""

    type: Literal["item_reference"]
    item_reference: Annotated[str, Field(min_length=1, max_length=256)]


class SamplingParams(Strict):
    """How answers are drawn."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    reasoning_effort: Short | None = None
    response_format: ResponseFormat | None = None
    text: TextConfig | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=0)] | None = None


class JsonlSource(Strict):
    """Items with their answers."""

    type: Literal["jsonl"]
    source: Annotated[FileContent | FileId, Field(discriminator="type")]


class AskedSource(Strict):
    """Items that a model answers."""

    type: Literal["completions", "responses"]
    source: Source
    input_messages: Annotated[Template | ItemReference, Field(discriminator="type")] | None = None
    model: Name | None = None
    sampling_params: SamplingParams | None = None


DataSource = Annotated[JsonlSource | AskedSource, Field(discriminator="type")]


class RunRequest(Strict):
    """POST v1/evals/{id}/runs."""

    data_source: DataSource
    name: Short | None = None
    metadata: Metadata | None = None
