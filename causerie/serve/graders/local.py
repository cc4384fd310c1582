"""Graders that need no model: comparisons, similarities, formulas over them; also read from a file, for training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from causerie.core import CauserieError
from causerie.serve.graders.formula import calculate
from causerie.serve.graders.shapes import Grader, MultiGrader, StringCheck, TextSimilarity
from causerie.serve.graders.similarity import similarity
from causerie.serve.graders.templates import fill

_GRADER: Final[TypeAdapter[Any]] = TypeAdapter(Grader)


def is_local(grader: Any) -> bool:
    """Whether a grader can be computed from the texts alone, without asking a model."""
    if isinstance(grader, MultiGrader):
        return all(is_local(each) for each in grader.named.values())
    return isinstance(grader, StringCheck) or (
        isinstance(grader, TextSimilarity) and grader.evaluation_metric != "cosine"
    )


def local_score(grader: Any, known: Mapping[str, Any]) -> float:
    """What a sample is worth to a grader for which `is_local` holds.

    Args:
        grader: the grader's model.
        known: `{"item": {...}, "sample": {...}}`.

    Raises:
        ValueError: for a formula without a finite value.
    """
    if isinstance(grader, StringCheck):
        return float(_check(grader, fill(grader.input, known), fill(grader.reference, known)))
    if isinstance(grader, TextSimilarity):
        return similarity(grader.evaluation_metric, fill(grader.input, known), fill(grader.reference, known))
    assert isinstance(grader, MultiGrader)
    return calculate(grader.calculate_output, {name: local_score(each, known) for name, each in grader.named.items()})


def _check(grader: StringCheck, text: str, reference: str) -> bool:
    if grader.operation == "eq":
        return text == reference
    if grader.operation == "ne":
        return text != reference
    if grader.operation == "like":
        return reference in text
    return reference.lower() in text.lower()


def sample_of(text: str) -> dict[str, Any]:
    """An answer as templates read it: its text, and what it holds where it is JSON."""
    sample: dict[str, Any] = {"output_text": text}
    with contextlib.suppress(ValueError, RecursionError):
        sample["output_json"] = json.loads(text)
    return sample


def local_judge(path: Path) -> Callable[[Mapping[str, Any], str], float]:
    """The grader in a JSON file as a function from a prompt's row and an answer to its score.

    Raises:
        CauserieError: CAU-6008 for a file that holds no grader, or one that asks a model or runs code.
    """
    try:
        grader = _GRADER.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        cause = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise CauserieError(
            "CAU-6008", f"no grader is here: {cause}", where=str(path), fix="see docs/guides"
        ) from error
    if not is_local(grader):
        cause, fix = f"a grader of type {grader.type} asks a model", "give string_check, text_similarity or multi"
        raise CauserieError("CAU-6008", cause, where=str(path), fix=fix)

    def judge(row: Mapping[str, Any], text: str) -> float:
        item = {name: value for name, value in row.items() if name != "prompt"}
        try:
            return local_score(grader, {"item": item, "sample": sample_of(text)})
        except ValueError as error:
            raise CauserieError("CAU-6008", str(error), where=str(path), fix="mend the formula") from error

    return judge
