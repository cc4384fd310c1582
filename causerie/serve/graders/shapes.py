"""Graders as the API spells them, for fine-tuning and evals alike."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from causerie.serve.limits import MAX_CRITERIA, MAX_TOKENS
from causerie.serve.shapes import INT64, Name, Number, Short, Strict, Text, TopP

Template = Text
"""A text in which `{{item.field}}` and `{{sample.output_text}}` stand for what is graded."""
Metric = Literal[
    "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class InputText(Strict):
    """A text in a grader's message."""

    type: Literal["input_text", "output_text"]
    text: Template


class GraderMessage(Strict):
    """A message to the model that grades."""

    role: Short
    content: Template | InputText | Annotated[list[InputText], Field(max_length=64)]
    type: Literal["message"] | None = None

    @property
    def text(self) -> str:
        """The template of its text."""
        if isinstance(self.content, str):
            return self.content
        parts = [self.content] if isinstance(self.content, InputText) else self.content
        return "".join(part.text for part in parts)


class StringCheck(Strict):
    """1 when a comparison of two texts holds, else 0."""

    type: Literal["string_check"]
    name: Short
    input: Template
    operation: Literal["eq", "ne", "like", "ilike"]
    reference: Template


class TextSimilarity(Strict):
    """How alike two texts are, from 0 to 1."""

    type: Literal["text_similarity"]
    name: Short = "text_similarity"
    input: Template
    reference: Template
    evaluation_metric: Metric
    pass_threshold: Number | None = None

    @model_validator(mode="after")
    def _computed(self) -> TextSimilarity:
        if self.evaluation_metric == "meteor":
            raise ValueError("meteor needs a dictionary of synonyms, which this server does not have")
        return self


class SamplingParams(Strict):
    """How the grading model draws."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    max_completions_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    reasoning_effort: Short | None = None


Messages = Annotated[list[GraderMessage], Field(min_length=1, max_length=64)]


class ScoreModel(Strict):
    """A number within a range that a model gives."""

    type: Literal["score_model"]
    name: Short
    model: Name
    input: Messages
    range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    pass_threshold: Number | None = None
    sampling_params: SamplingParams | None = None


class LabelModel(Strict):
    """Whether the label that a model chooses is among the passing ones."""

    type: Literal["label_model"]
    name: Short
    model: Name
    input: Messages
    labels: Annotated[list[Name], Field(min_length=1, max_length=64)]
    passing_labels: Annotated[list[Name], Field(max_length=64)]
    sampling_params: SamplingParams | None = None

    @model_validator(mode="after")
    def _among(self) -> LabelModel:
        if not set(self.passing_labels) <= set(self.labels):
            raise ValueError("passing_labels must be among labels")
        return self


class PythonGrader(Strict):
    """Code of the caller's; refused, since the server runs none."""

    type: Literal["python"]
    name: Short
    source: Text
    image_tag: Short | None = None
    pass_threshold: Number | None = None

    @model_validator(mode="after")
    def _refused(self) -> PythonGrader:
        raise ValueError("python graders are not run: this server executes no code of its callers")


Single = Annotated[StringCheck | TextSimilarity | ScoreModel | LabelModel | PythonGrader, Field(discriminator="type")]


class MultiGrader(Strict):
    """Several graders, their scores combined by a formula over their names."""

    type: Literal["multi"]
    name: Short
    graders: Annotated[dict[Name, Single], Field(min_length=1, max_length=MAX_CRITERIA)] | Single
    calculate_output: Annotated[str, Field(max_length=1_000)]

    @model_validator(mode="after")
    def _formula(self) -> MultiGrader:
        from causerie.serve.graders.formula import check_formula

        check_formula(self.calculate_output, self.named)
        return self

    @property
    def named(self) -> dict[str, Any]:
        """The graders by the names that the formula uses."""
        return self.graders if isinstance(self.graders, dict) else {self.graders.name: self.graders}


Grader = Annotated[
    StringCheck | TextSimilarity | ScoreModel | LabelModel | PythonGrader | MultiGrader, Field(discriminator="type")
]
