"""Public sets that come in formats of their own: HellaSwag (OLMo's requests), BLiMP, MMLU; as `Question`s."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError
from causerie.evals.choice_sets import Question
from causerie.evals.rows import named, read_rows

LETTERS: Final = "ABCD"


def read_public_set(path: Path) -> tuple[str, list[Question]] | None:
    """The set's name and questions, or None when the file is none of these.

    `blimp*.zip`: minimal pairs, the acceptable sentence against the other, nothing before them. `mmlu*.zip`: the
    question with lettered choices, the letter is scored. Files of requests with "hellaswag" in their path:
    continuations as they stand.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-4204 naming the file.
    """
    name = path.name.lower()
    try:
        if name.endswith(".zip") and ("blimp" in name or "mmlu" in name):
            with zipfile.ZipFile(path) as archive:
                read = _blimp if "blimp" in name else _mmlu
                return name.split("_")[0].split(".")[0], list(read(archive))
        if "hellaswag" in str(path).lower() and "requests.jsonl" in name:
            return "hellaswag", _hellaswag(path)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    return None


def _blimp(archive: zipfile.ZipFile) -> Iterator[Question]:
    for name in sorted(n for n in archive.namelist() if n.endswith(".jsonl")):
        for line in archive.read(name).decode("utf-8").split("\n"):
            if line.strip():
                row = json.loads(line)
                pair = (f" {row['sentence_good']}", f" {row['sentence_bad']}")
                yield Question(f"{row['UID']}/{row['pairID']}", ("", ""), pair, 0)


def _mmlu(archive: zipfile.ZipFile) -> Iterator[Question]:
    for name in sorted(n for n in archive.namelist() if n.endswith("_test.csv") and not Path(n).name.startswith(".")):
        subject = Path(name).name.removesuffix("_test.csv")
        topic = subject.replace("_", " ")
        rows = csv.reader(io.StringIO(archive.read(name).decode("utf-8"), newline=""))
        for number, (question, *choices, answer) in enumerate(rows):
            listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
            head = f"The following are multiple choice questions (with answers) about {topic}.\n\n"
            context = f"{head}{question.strip()}\n{listed}\nAnswer:"
            endings = tuple(f" {letter}" for letter in LETTERS)
            yield Question(f"{subject}/{number}", (context,) * 4, endings, LETTERS.index(answer))


def _hellaswag(path: Path) -> list[Question]:
    found: dict[str, Question] = {}
    for _, _, row in named(read_rows(path)):
        doc: dict[str, Any] = row["doc"]
        choices = tuple(f" {choice}" for choice in doc["choices"])
        id_ = str(doc.get("ind", doc.get("id", len(found))))
        found.setdefault(id_, Question(id_, (doc["query"],) * len(choices), choices, int(doc["gold"])))
    return list(found.values())


def _unreadable(path: Path, cause: str) -> CauserieError:
    fix = "give the set as it is published, or questions as JSONL"
    return CauserieError("CAU-4204", f"not a set of this name: {cause}", where=str(path), fix=fix)
