"""Multiple-choice sets: simple JSONL, and the known public sets as parquet, told apart by their columns.

The public sets are put as lm-evaluation-harness puts them, to the letter, so that figures can be compared (see
`bench/lm_eval_parity.py`). Two are not: CommonsenseQA, where the harness scores letters, and COPA, where it
has two spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError
from causerie.evals.rows import named, read_rows

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A question as text to score: ending i follows context i; contexts differ only where the set is made so."""

    id: str
    contexts: tuple[str, ...]
    endings: tuple[str, ...]
    answer: int
    """Index of the right ending."""


def read_set(path: Path) -> tuple[str, list[Question]]:
    """The set's short name and its questions; those without a known answer are left out.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-4204 naming the row, CAU-4207 for a table of no known set.
    """
    if path.suffix != ".parquet":
        return path.name.split(".")[0], [_simple(name, where, row) for name, where, row in named(read_rows(path))]
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise CauserieError("CAU-1001", "no such file", where=str(path), fix="check the path")
    rows = parquet.read_table(path).to_pylist()
    columns = set(rows[0]) if rows else set()
    loader = next((read for needed, read in LOADERS if needed <= columns), None)
    if loader is None:
        raise CauserieError(
            "CAU-4207",
            f"columns {', '.join(sorted(columns))} belong to no known set",
            where=str(path),
            fix='write the questions as JSONL {"question", "choices", "answer"}',
        )
    found = [loader(str(row.get("id", row.get("idx", number))), row) for number, row in enumerate(rows)]
    return _short_name(path), [question for question in found if question is not None]


def ask(id: str, question: str, choices: Sequence[str], answer: int) -> Question | None:
    """A question in the common form `Question: ...\\nAnswer:`; None when the answer is not among the choices."""
    return _after(id, f"Question: {question}\nAnswer:", choices, answer)


def _after(id: str, context: str, choices: Sequence[str], answer: int) -> Question | None:
    """Choices that each follow the context after a space; None when the answer is not among them or one is empty."""
    if not 0 <= answer < len(choices) or not all(choices):
        return None
    return Question(id, (context,) * len(choices), tuple(f" {choice}" for choice in choices), answer)


def _simple(name: str, where: str, row: Row) -> Question:
    choices, answer = row.get("choices"), row.get("answer")
    index = choices.index(answer) if isinstance(choices, list) and answer in choices else answer
    if isinstance(index, str) and len(index) == 1:
        index = "ABCDEFGHIJ".find(index.upper())
    made = None
    if isinstance(choices, list) and all(isinstance(one, str) for one in choices) and isinstance(index, int):
        made = ask(name, str(row.get("question", "")).strip(), [choice.strip() for choice in choices], index)
    if made is None:
        raise CauserieError(
            "CAU-4204",
            "expected a question, choices (texts) and answer (an index from 0, a letter or the right choice's text)",
            where=where,
            fix='write {"question": "...", "choices": ["...", "..."], "answer": 0}',
        )
    return made


def _labelled(id: str, row: Row) -> Question | None:
    """ARC, OpenBookQA (whose stems the choices end), CommonsenseQA: labelled choices and an answer key."""
    labels = list(row["choices"]["label"])
    answer = labels.index(row["answerKey"]) if row["answerKey"] in labels else -1
    choices = list(row["choices"]["text"])
    return (
        _after(id, row["question_stem"], choices, answer)
        if "question_stem" in row
        else ask(id, row["question"], choices, answer)
    )


def _piqa(id: str, row: Row) -> Question | None:
    return ask(id, row["goal"], [row["sol1"], row["sol2"]], row["label"])


def _sciq(id: str, row: Row) -> Question | None:
    choices = [row[name] for name in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return _after(id, f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:", choices, 3)


def _copa(id: str, row: Row) -> Question | None:
    link = {"cause": "because", "effect": "therefore"}[row["question"]]
    choices = [f"{text[0].lower()}{text[1:]}" for text in (row["choice1"], row["choice2"])]
    return _after(id, f"{row['premise'].strip()[:-1]} {link}", choices, row["label"])


def _winogrande(id: str, row: Row) -> Question | None:
    before, after = row["sentence"].split("_", 1)
    contexts = tuple(before + row[option] for option in ("option1", "option2"))
    ending = f" {after.strip()}"
    return Question(id, contexts, (ending, ending), int(row["answer"]) - 1) if row["answer"] in ("1", "2") else None


def _boolq(id: str, row: Row) -> Question | None:
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return _after(id, context, ["no", "yes"], int(row["answer"]))


def _cb(id: str, row: Row) -> Question | None:
    context = f"{row['premise']}\nQuestion: {row['hypothesis']}. True, False, or Neither?\nAnswer:"
    return _after(id, context, ["True", "False", "Neither"], row["label"])


LOADERS: Final[tuple[tuple[frozenset[str], Callable[[str, Row], Question | None]], ...]] = (
    (frozenset({"choices", "answerKey"}), _labelled),
    (frozenset({"goal", "sol1", "sol2", "label"}), _piqa),
    (frozenset({"question", "correct_answer", "distractor1", "support"}), _sciq),
    (frozenset({"premise", "choice1", "choice2", "question", "label"}), _copa),
    (frozenset({"sentence", "option1", "option2", "answer"}), _winogrande),
    (frozenset({"passage", "question", "answer"}), _boolq),
    (frozenset({"premise", "hypothesis", "label"}), _cb),
)
"""Columns that tell a set, and the function that turns its rows into questions."""

NAMES: Final = (
    "ARC-Easy",
    "ARC-Challenge",
    "commonsense_qa",
    "openbookqa",
    "winogrande",
    "boolq",
    "piqa",
    "sciq",
    "copa",
    "cb",
)


def _short_name(path: Path) -> str:
    found = next((name for name in NAMES if name.lower() in path.stem.lower()), path.stem)
    return found.lower().replace("-", "_")
