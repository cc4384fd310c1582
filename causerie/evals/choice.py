"""Suite `choice`: multiple choice by likelihood; the answer with the highest log-probability per UTF-8 byte wins.

Nothing is generated and no chat format is used: "Question: ...\\nAnswer:" and each choice are scored as plain text, so
base models and chat models are measured alike. Accuracy by the plain sum stands beside it; it favours short choices.
They are lm-evaluation-harness's `acc_bytes` and `acc`; the space before a choice is not counted as a byte.
Sets come from simple JSONL or, told by their columns, from the parquet files of the data pack (`choice_sets`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from causerie.evals.choice_sets import Question, read_set
from causerie.evals.likelihood_sets import read_public_set
from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import at_least_one, spread
from causerie.evals.statistics import Floats
from causerie.evals.subject import Subject


def run(subject: Subject, files: Sequence[Path]) -> SuiteResult:
    """Score every choice of every question.

    Args:
        subject: the model.
        files: JSONL or parquet files, one set each; the limit applies to each.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-4203, CAU-4204, CAU-4207.
    """
    sets: dict[str, list[Question]] = {}
    for path in files:
        name, questions = read_public_set(path) or read_set(path)
        if name in sets:  # `arc/test.jsonl` and `piqa/test.jsonl` are called the same
            name = next(f"{name}#{number}" for number in count(2) if f"{name}#{number}" not in sets)
        sets[name] = spread(at_least_one(questions, path), subject.config.limit_of("choice"))
    asked = [(name, question) for name, questions in sets.items() for question in questions]
    sequences = [
        subject.continued(context, ending)
        for _, question in asked
        for context, ending in zip(question.contexts, question.endings, strict=True)
    ]
    scores = iter(subject.log_probs(sequences, "choice"))
    items = tuple(
        _item(name, question, [next(scores) for _ in question.endings], len(sets[name])) for name, question in asked
    )
    return SuiteResult("choice", _metrics(sets), items)


def _metrics(sets: dict[str, list[Question]]) -> tuple[Metric, ...]:
    found = []
    for name, questions in sets.items():
        chance = float(np.mean([1 / len(question.endings) for question in questions]))
        about = f"right answers, log-probability per byte; chance {chance:.3f}"
        found.append(Metric(name, "higher", about))
        found.append(Metric(f"{name}.sum", "higher", "the same by summed log-probability"))
    if len(sets) > 1:
        found.append(Metric("mean_of_sets", "higher", "mean of the sets' accuracies, per byte"))
    return tuple(found)


def _item(name: str, question: Question, scores: Sequence[Floats], of: int) -> Item:
    sums = [float(values.sum()) for values in scores]
    sizes = [len(text.removeprefix(" ").encode()) for text in question.endings]
    per_byte = [total / size for total, size in zip(sums, sizes, strict=True)]
    right = float(int(np.argmax(per_byte)) == question.answer)
    return Item(
        id=f"{name}/{question.id}",
        values={name: right, f"{name}.sum": float(int(np.argmax(sums)) == question.answer), "mean_of_sets": right / of},
        weights={"mean_of_sets": 1 / of},
        detail={"log_p": [round(total, 4) for total in sums], "answer": question.answer},
    )
