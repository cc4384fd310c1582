"""Suite `ifeval`: verifiable instructions (Zhou et al. 2023, arXiv:2311.07911), judged by program.

Four figures as in the paper: prompts with all instructions followed and instructions followed, each strictly (the
answer as it is) and loosely (the best of eight readings). See `ifeval_checks` for how ours differ from the authors'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causerie.core import CauserieError
from causerie.evals.ifeval_checks import CHECKS, follows, follows_loosely
from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import at_least_one, named, read_rows, spread, text_field
from causerie.evals.subject import Subject

METRICS = (
    Metric("prompt_strict", "higher", "prompts with every instruction followed, answer taken literally"),
    Metric("prompt_loose", "higher", "the same, best of eight readings"),
    Metric("instruction_strict", "higher", "instructions followed, answer taken literally"),
    Metric("instruction_loose", "higher", "the same, best of eight readings"),
)


@dataclass(frozen=True)
class Task:
    """A prompt with its instructions: `(id, arguments)` pairs."""

    id: str
    prompt: str
    instructions: tuple[tuple[str, Mapping[str, Any]], ...]


def run(subject: Subject, data: Path) -> SuiteResult:
    """Answer the prompts and check each instruction.

    Args:
        subject: the model.
        data: JSONL in the published format: "prompt", "instruction_id_list", "kwargs".

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-4203, CAU-4204, CAU-4206.
    """
    tasks = spread(at_least_one(read_tasks(data), data), subject.config.limit_of("ifeval"))
    prompts = [subject.chat.prompt([{"role": "user", "content": task.prompt}]) for task in tasks]
    answers = subject.answers([ids[-subject.max_length :] for ids in prompts], "ifeval")
    items = tuple(judge(task, answer.text) for task, answer in zip(tasks, answers, strict=True))
    return SuiteResult("ifeval", METRICS, items, {"answers cut at max_tokens": sum(not a.ended for a in answers)})


def read_tasks(path: Path) -> list[Task]:
    """Tasks of a data file, every instruction known."""
    return [_task(name, where, row) for name, where, row in named(read_rows(path))]


def judge(task: Task, answer: str) -> Item:
    """The item of one answer: which instructions it follows, strictly and loosely."""
    strict = [follows(name, arguments, answer) for name, arguments in task.instructions]
    loose = [follows_loosely(name, arguments, answer) for name, arguments in task.instructions]
    count = float(len(task.instructions))
    return Item(
        id=task.id,
        values={
            "prompt_strict": float(all(strict)),
            "prompt_loose": float(all(loose)),
            "instruction_strict": float(sum(strict)),
            "instruction_loose": float(sum(loose)),
        },
        weights={"instruction_strict": count, "instruction_loose": count},
        detail={"prompt": task.prompt, "answer": answer, "followed": _named(task, strict)},
    )


def _named(task: Task, verdicts: Sequence[bool]) -> list[list[Any]]:
    return [[name, verdict] for (name, _), verdict in zip(task.instructions, verdicts, strict=True)]


def _task(name: str, where: str, row: Mapping[str, Any]) -> Task:
    ids, arguments = row.get("instruction_id_list"), row.get("kwargs")
    well_formed = isinstance(ids, list) and isinstance(arguments, list) and 0 < len(ids) == len(arguments)
    if not well_formed or not all(isinstance(one, dict) for one in arguments or ()):
        raise CauserieError(
            "CAU-4204",
            "instruction_id_list and kwargs should be lists of one length, kwargs of objects",
            where=where,
            fix="use the published IFEval file",
        )
    assert isinstance(ids, list)
    assert isinstance(arguments, list)
    for instruction in ids:
        if instruction not in CHECKS:
            raise CauserieError("CAU-4206", f"unknown instruction {instruction!r}", where=where, fix="mend the row")
    return Task(name, text_field(row, "prompt", where), tuple(zip(ids, arguments, strict=True)))
