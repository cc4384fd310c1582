"""Grading one sample: templates are filled in, then compared, measured, or shown to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from causerie.core import CauserieError
from causerie.infer import Grammar
from causerie.serve.answer import AnswerParams
from causerie.serve.asking import ask
from causerie.serve.embeddings import embed
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.graders.formula import calculate
from causerie.serve.graders.local import is_local, local_score
from causerie.serve.graders.shapes import (
    LabelModel,
    MultiGrader,
    SamplingParams,
    ScoreModel,
    StringCheck,
    TextSimilarity,
)
from causerie.serve.graders.templates import fill
from causerie.serve.routes import Office

THRESHOLD: Final = 0.5
"""Share of a grader's range from which a score passes, where the grader names no threshold."""
ROLES: Final = {"developer": "system", "system": "system", "assistant": "assistant"}


@dataclass(frozen=True)
class Grade:
    """What one sample is worth to one grader."""

    name: str
    type: str
    score: float
    passed: bool
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


async def grade(office: Office, owner: str, grader: Any, known: Mapping[str, Any]) -> Grade:
    """What a sample is worth to a grader; what goes wrong with a model is told in the grade."""
    try:
        return await _grade(office, owner, grader, known)
    except (ApiError, CauserieError, ValueError) as error:
        message = as_api_error(error).message if not isinstance(error, ValueError) else str(error)
        return Grade(grader.name, grader.type, 0.0, False, error=message)


async def _grade(office: Office, owner: str, grader: Any, known: Mapping[str, Any]) -> Grade:
    if isinstance(grader, StringCheck):
        score = local_score(grader, known)
        return Grade(grader.name, grader.type, score, score == 1)
    if isinstance(grader, TextSimilarity):
        score = await _similar(office, owner, grader, known)
        threshold = THRESHOLD if grader.pass_threshold is None else grader.pass_threshold
        return Grade(grader.name, grader.type, score, score >= threshold)
    if isinstance(grader, ScoreModel):
        return await _score(office, owner, grader, known)
    if isinstance(grader, LabelModel):
        return await _label(office, owner, grader, known)
    assert isinstance(grader, MultiGrader)
    parts = {name: await grade(office, owner, each, known) for name, each in grader.named.items()}
    failed = [part.error for part in parts.values() if part.error]
    if failed:
        raise ValueError(failed[0])
    score = calculate(grader.calculate_output, {name: part.score for name, part in parts.items()})
    details = {name: part.score for name, part in parts.items()}
    return Grade(grader.name, grader.type, score, score >= THRESHOLD, {"scores": details})


async def _similar(office: Office, owner: str, grader: TextSimilarity, known: Mapping[str, Any]) -> float:
    if is_local(grader):
        return local_score(grader, known)
    text, reference = fill(grader.input, known), fill(grader.reference, known)
    names = [name for name, served in office.pool.models() if served.seen_by(owner)]
    if not names:
        raise ValueError("cosine needs a served model for embeddings")
    async with office.pool.lease(names[0], owner) as served:
        batch = [[served.tokenizer.eot_id, *served.tokenizer.encode(part)] for part in (text, reference)]
        left, right = await embed(served, batch)
    return sum(a * b for a, b in zip(left, right, strict=True))


def _messages(grader: ScoreModel | LabelModel, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": ROLES.get(each.role, "user"), "content": fill(each.text, known)} for each in grader.input]


def _params(given: SamplingParams | None) -> AnswerParams:
    given = given or SamplingParams()
    return AnswerParams(
        max_tokens=given.max_completion_tokens or given.max_completions_tokens or 256,
        temperature=0.0 if given.temperature is None else given.temperature,
        top_p=1.0 if given.top_p is None else given.top_p,
        seed=given.seed,
        logprobs=False,
    )


async def _answered(office: Office, owner: str, grader: Any, known: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    said = (
        await ask(
            office,
            owner,
            grader.model,
            _messages(grader, known),
            _params(grader.sampling_params),
            grammar=Grammar.json_schema(schema),
            route="graders",
        )
    )[0]
    try:
        found = json.loads(said.text)
    except ValueError as error:
        raise ValueError(f"the grading model gave no JSON (it ended by {said.finish})") from error
    if not isinstance(found, dict):
        raise ValueError("the grading model gave no JSON object")
    return found


async def _score(office: Office, owner: str, grader: ScoreModel, known: Mapping[str, Any]) -> Grade:
    low, high = grader.range or (0.0, 1.0)
    schema = {
        "type": "object",
        "properties": {"result": {"type": "number", "minimum": low, "maximum": high}},
        "required": ["result"],
        "additionalProperties": False,
    }
    found = await _answered(office, owner, grader, known, schema)
    score = min(max(float(found.get("result", low)), low), high)
    threshold = low + THRESHOLD * (high - low) if grader.pass_threshold is None else grader.pass_threshold
    return Grade(grader.name, grader.type, score, score >= threshold)


async def _label(office: Office, owner: str, grader: LabelModel, known: Mapping[str, Any]) -> Grade:
    schema = {
        "type": "object",
        "properties": {"label": {"enum": grader.labels}},
        "required": ["label"],
        "additionalProperties": False,
    }
    label = (await _answered(office, owner, grader, known, schema)).get("label")
    passed = label in grader.passing_labels
    return Grade(grader.name, grader.type, float(passed), passed, {"label": label})
