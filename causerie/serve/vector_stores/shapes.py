"""Bodies of v1/vector_stores."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from causerie.serve.shapes import Metadata, Name, Number, Short, Strict, Text

MAX_FILES = 100
Value = Annotated[str, Field(max_length=512)] | Number | bool
Attributes = Annotated[dict[Annotated[str, Field(max_length=64)], Value], Field(max_length=16)]


class Static(Strict):
    """Sizes of chunks, counted in words and marks."""

    max_chunk_size_tokens: Annotated[int, Field(ge=100, le=4_096)]
    chunk_overlap_tokens: Annotated[int, Field(ge=0, le=2_048)]

    @model_validator(mode="after")
    def _half(self) -> Static:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise ValueError("chunks overlap by half their size at most")
        return self


class Chunking(Strict):
    """How files are cut."""

    type: Literal["auto", "static"]
    static: Static | None = None

    @model_validator(mode="after")
    def _sizes(self) -> Chunking:
        if (self.static is not None) != (self.type == "static"):
            raise ValueError("static sizes belong to the type static, which needs them")
        return self

    def sizes(self) -> tuple[int, int]:
        """Size and overlap."""
        return (self.static.max_chunk_size_tokens, self.static.chunk_overlap_tokens) if self.static else (800, 400)


class StoreExpiry(Strict):
    """When a store that is not used expires."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=365)]


Ids = Annotated[list[Name], Field(max_length=MAX_FILES)]


class StoreRequest(Strict):
    """POST v1/vector_stores."""

    name: Short | None = None
    description: Short | None = None
    file_ids: Ids | None = None
    chunking_strategy: Chunking | None = None
    expires_after: StoreExpiry | None = None
    metadata: Metadata | None = None
    embedding_model: Name | None = None
    """Ours beside OpenAI's: a served model whose embeddings rank chunks too, fused with BM25."""


class StoreUpdate(Strict):
    """POST v1/vector_stores/{id}."""

    name: Short | None = None
    expires_after: StoreExpiry | None = None
    metadata: Metadata | None = None


class FileRequest(Strict):
    """POST v1/vector_stores/{id}/files."""

    file_id: Name
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class FileUpdate(Strict):
    """POST v1/vector_stores/{id}/files/{file_id}."""

    attributes: Attributes | None


class BatchRequest(Strict):
    """POST v1/vector_stores/{id}/file_batches: ids with one setting for all, or files with their own."""

    file_ids: Ids | None = None
    files: Annotated[list[FileRequest], Field(max_length=MAX_FILES)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None

    def requests(self) -> list[FileRequest]:
        """Every file once, those with their own settings first."""
        own = {each.file_id: each for each in self.files or ()}
        for id in self.file_ids or ():
            own.setdefault(
                id, FileRequest(file_id=id, attributes=self.attributes, chunking_strategy=self.chunking_strategy)
            )
        return list(own.values())


class Comparison(Strict):
    """A condition on one attribute."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: Short
    value: Value | Annotated[list[Value], Field(max_length=256)]


def _shallow(value: Any) -> Any:
    def depth(each: Any) -> int:
        return 1 + max(map(depth, each.filters), default=0) if isinstance(each, Compound) else 1

    if depth(value) > 8:
        raise ValueError("filters are nested more than eight deep")
    return value


class Compound(Strict):
    """Conditions joined."""

    type: Literal["and", "or"]
    filters: Annotated[list[Comparison | Compound], Field(min_length=1, max_length=32)]


class Ranking(Strict):
    """How finds are ranked; there is one ranker."""

    ranker: Short | None = None
    score_threshold: Annotated[Number, Field(ge=0, le=1)] | None = None


class SearchRequest(Strict):
    """POST v1/vector_stores/{id}/search."""

    query: Text | Annotated[list[Text], Field(min_length=1, max_length=16)]
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    filters: Annotated[Comparison | Compound | None, AfterValidator(_shallow)] = None
    ranking_options: Ranking | None = None
    rewrite_query: bool | None = None
    """Accepted; the query is taken as it is."""
