"""Whole files of every dataset type of TRL, with the texts that people really send, in and out without a changed letter."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from causerie.core import read_jsonl, write_jsonl
from causerie.feedback import FeedbackExportConfig, FeedbackImportConfig, export_feedback, import_feedback

PIECES = (
    "Why is the sky blue?", "Parce que…", "x = 3 < 4 && y", "<|im_start|>system", "</s>", "🙂👩‍👩‍👧", "שלום", "日本語のテキスト",
    '"quoted" \\ back', "tab\there", "two\nlines", "`code`", "$5 and $10", "Human: hi", "é", "e\u0301", "a\u00a0b", "0.8 > 0.11",
)  # fmt: skip
ROWS = 40


def text(rng: random.Random, number: int) -> str:
    """A text that no other row has, without blanks at its ends."""
    return " ".join([*rng.choices(PIECES, k=rng.randint(1, 4)), f"#{number}"])


def talk(rng: random.Random, number: int, last: str) -> list[dict[str, str]]:
    """One to five messages that end with a role."""
    turns = ["user", "assistant", "user", "assistant", "user"][: rng.choice((1, 3, 5))]
    turns = turns if last == "user" else [*turns, "assistant"]
    opening = [{"role": "system", "content": text(rng, number)}] if rng.random() < 0.3 else []
    return [*opening, *({"role": role, "content": text(rng, number * 10 + place)} for place, role in enumerate(turns))]


def answer(rng: random.Random, number: int, name: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": f"{name}: {text(rng, number)}"}]


def row(form: str, rng: random.Random, number: int) -> dict[str, Any]:
    """A conversational row of a form."""
    if form == "language-modeling":
        return {"messages": talk(rng, number, "assistant")}
    prompt = talk(rng, number, "user")
    if form == "prompt-only":
        return {"prompt": prompt}
    if form == "prompt-completion":
        return {"prompt": prompt, "completion": answer(rng, number, "only")}
    if form == "unpaired-preference":
        return {"prompt": prompt, "completion": answer(rng, number, "only"), "label": rng.random() < 0.5}
    pair = {"chosen": answer(rng, number, "good"), "rejected": answer(rng, number, "bad")}
    return (
        {"prompt": prompt, **pair} if form == "preference" else {name: [*prompt, *said] for name, said in pair.items()}
    )


FORMS: tuple[Any, ...] = (
    "language-modeling", "prompt-only", "prompt-completion", "preference", "implicit-preference", "unpaired-preference",
)  # fmt: skip


def canonical(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(one, sort_keys=True, ensure_ascii=False) for one in rows)


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_file_comes_back(workspace: Path, form: Any) -> None:
    rng = random.Random(FORMS.index(form))
    rows = [row(form, rng, number) for number in range(ROWS)]
    write_jsonl(workspace / "in.jsonl", rows)
    done = import_feedback(FeedbackImportConfig((workspace / "in.jsonl",)), workspace)
    assert (done.bad, done.signals_new) == (0, ROWS)
    export_feedback(FeedbackExportConfig(workspace / "out.jsonl", form, "conversational"), workspace)
    assert canonical(list(read_jsonl(workspace / "out.jsonl"))) == canonical(rows)


def test_all_forms_in_one_file_keep_apart(workspace: Path) -> None:
    """A row is told by its fields alone; each export takes the rows that its form can hold."""
    rng = random.Random(9)
    mixed = {form: [row(form, rng, number + 100 * place) for number in range(5)] for place, form in enumerate(FORMS)}
    write_jsonl(workspace / "in.jsonl", [one for rows in mixed.values() for one in rows])
    assert import_feedback(FeedbackImportConfig((workspace / "in.jsonl",)), workspace).signals_new == 30
    for form, holds in (("preference", 10), ("unpaired-preference", 5)):
        result = export_feedback(FeedbackExportConfig(workspace / f"{form}.jsonl", form), workspace)  # type: ignore[arg-type]
        assert result.rows == holds, form


def test_a_second_workspace_gets_the_same_from_an_export(workspace: Path) -> None:
    """Export, import elsewhere, export again: nothing is added or lost on the way."""
    rng = random.Random(4)
    write_jsonl(workspace / "in.jsonl", [row("preference", rng, number) for number in range(ROWS)])
    import_feedback(FeedbackImportConfig((workspace / "in.jsonl",)), workspace)
    export_feedback(FeedbackExportConfig(workspace / "one.jsonl", "preference"), workspace)
    other = workspace / "other"
    other.mkdir()
    import_feedback(FeedbackImportConfig((workspace / "one.jsonl",)), other)
    export_feedback(FeedbackExportConfig(workspace / "two.jsonl", "preference"), other)
    assert canonical(list(read_jsonl(workspace / "one.jsonl"))) == canonical(list(read_jsonl(workspace / "two.jsonl")))
