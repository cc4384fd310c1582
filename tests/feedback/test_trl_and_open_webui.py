"""Every dataset type of TRL and Open WebUI's feedback, in and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from causerie.core import read_jsonl, write_jsonl
from causerie.feedback import FeedbackExportConfig, FeedbackImportConfig, export_feedback, import_feedback
from causerie.store import open_store

USER = {"role": "user", "content": "What colour is the sky?"}
BLUE, GREEN = ({"role": "assistant", "content": f"It is {colour}."} for colour in ("blue", "green"))

STANDARD: dict[str, dict[str, Any]] = {
    "language-modeling": {"text": "The sky is blue."},
    "prompt-only": {"prompt": "The sky is"},
    "prompt-completion": {"prompt": "The sky is", "completion": "blue."},
    "preference": {"prompt": "The sky is", "chosen": "blue.", "rejected": "green."},
    "unpaired-preference": {"prompt": "The sky is", "completion": "blue.", "label": True},
    "stepwise": {"prompt": "Which is larger, 9.8 or 9.11?", "completions": ["0.8 > 0.11.", "So 9.11."], "labels": [True, False]},
}  # fmt: skip
CONVERSATIONAL: dict[str, dict[str, Any]] = {
    "language-modeling": {"messages": [USER, BLUE]},
    "prompt-only": {"prompt": [USER]},
    "prompt-completion": {"prompt": [USER], "completion": [BLUE]},
    "preference": {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
    "implicit-preference": {"chosen": [USER, BLUE], "rejected": [USER, GREEN]},
    "unpaired-preference": {"prompt": [USER], "completion": [BLUE], "label": False},
}
CASES = [("standard", form, row) for form, row in STANDARD.items()] + [
    ("conversational", form, row) for form, row in CONVERSATIONAL.items()
]


def there_and_back(workspace: Path, row: dict[str, Any], form: Any, style: Any) -> list[dict[str, Any]]:
    write_jsonl(workspace / "in.jsonl", [row])
    result = import_feedback(FeedbackImportConfig((workspace / "in.jsonl",)), workspace)
    assert (result.bad, result.signals_new) == (0, 1)
    export_feedback(FeedbackExportConfig(workspace / "out.jsonl", form, style), workspace)
    return list(read_jsonl(workspace / "out.jsonl"))


@pytest.mark.parametrize(("style", "form", "row"), CASES, ids=[f"{style}-{form}" for style, form, _ in CASES])
def test_a_row_comes_back_as_it_went_in(workspace: Path, style: str, form: str, row: dict[str, Any]) -> None:
    assert there_and_back(workspace, row, form, style) == [row]


def test_the_implicit_prompt_of_plain_texts_is_what_both_begin_with(workspace: Path) -> None:
    row = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    assert there_and_back(workspace, row, "preference", "standard") == [
        {"prompt": "The sky is", "chosen": "blue.", "rejected": "green."}
    ]


def test_message_lists_hold_role_and_content_only(workspace: Path) -> None:
    """TRL's rule for a conversational row (`trl.data_utils.is_conversational`)."""
    rows = there_and_back(workspace, CONVERSATIONAL["preference"], "preference", "conversational")
    for value in rows[0].values():
        assert all(set(message) == {"role", "content"} for message in value)


def test_what_plain_texts_cannot_hold_is_counted(workspace: Path) -> None:
    row = {"prompt": [USER, BLUE, USER], "chosen": [BLUE], "rejected": [GREEN]}
    write_jsonl(workspace / "in.jsonl", [row])
    import_feedback(FeedbackImportConfig((workspace / "in.jsonl",)), workspace)
    result = export_feedback(FeedbackExportConfig(workspace / "out.jsonl", "preference", "standard"), workspace)
    assert (result.rows, result.left_out) == (0, {"not_one_question_and_answer": 1})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "p", "completions": ["a"], "labels": []}, "one length"),
        ({"prompt": "p", "completions": [3], "labels": [True]}, "not a text"),
        ({"prompt": "p", "completions": ["a"], "labels": ["yes"]}, "not true or false"),
        ({"text": "  "}, "empty"),
        ({"chosen": "one", "rejected": "two"}, "share no beginning"),
    ],
)
def test_broken_rows_are_refused_with_line_and_reason(workspace: Path, row: dict[str, Any], words: str) -> None:
    write_jsonl(workspace / "in.jsonl", [{"prompt": "good"}, row])
    result = import_feedback(FeedbackImportConfig((workspace / "in.jsonl",)), workspace)
    assert (result.rows, result.bad) == (2, 1)
    assert result.bad_rows[0].line == 2
    assert words in result.bad_rows[0].reason


def test_open_webui_there_and_back(workspace: Path, tmp_path: Path) -> None:
    source = Path(__file__).parent / "files" / "open-webui.json"
    first = import_feedback(FeedbackImportConfig((source,), source="owui"), workspace)
    out = tmp_path / "feedbacks.json"
    export_feedback(FeedbackExportConfig(out, "open-webui"), workspace)
    rows = json.loads(out.read_text())
    assert all({"id", "user_id", "type", "data", "meta", "snapshot", "created_at"} <= row.keys() for row in rows)
    again = tmp_path / "again"
    second = import_feedback(FeedbackImportConfig((out,), source="owui"), again)
    assert second.bad == 0
    assert second.signals_new == first.signals_new
    labels = [sorted(_labels(place, tmp_path / f"{index}.jsonl")) for index, place in enumerate((workspace, again))]
    assert labels[0] == labels[1]
    assert labels[0]


def _labels(workspace: Path, out: Path) -> list[str]:
    export_feedback(FeedbackExportConfig(out, "unpaired-preference"), workspace)
    return [json.dumps(row, sort_keys=True) for row in read_jsonl(out)]


def test_an_arena_vote_becomes_a_pair_and_goes_back_as_one(workspace: Path, tmp_path: Path) -> None:
    messages = {
        "q": {"id": "q", "parentId": None, "role": "user", "content": "Why?"},
        "a": {"id": "a", "parentId": "q", "role": "assistant", "content": "Because."},
        "b": {"id": "b", "parentId": "q", "role": "assistant", "content": "No idea."},
    }
    row = {
        "id": "f1", "user_id": "ada", "type": "rating",
        "data": {"rating": -1, "model_id": "m", "sibling_model_ids": ["n"]},
        "meta": {"message_id": "b", "chat_id": "c"},
        "snapshot": {"chat": {"chat": {"history": {"messages": messages}}}},
    }  # fmt: skip
    (tmp_path / "in.json").write_text(json.dumps([row]))
    import_feedback(FeedbackImportConfig((tmp_path / "in.json",)), workspace)
    wanted = {"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}
    export_feedback(FeedbackExportConfig(tmp_path / "p.jsonl", "preference", "standard"), workspace)
    assert list(read_jsonl(tmp_path / "p.jsonl")) == [wanted]
    export_feedback(FeedbackExportConfig(tmp_path / "o.json", "open-webui"), workspace)
    import_feedback(FeedbackImportConfig((tmp_path / "o.json",)), tmp_path / "other")
    export_feedback(FeedbackExportConfig(tmp_path / "p2.jsonl", "preference", "standard"), tmp_path / "other")
    assert list(read_jsonl(tmp_path / "p2.jsonl")) == [wanted]


def test_prompts_texts_and_steps_are_kept_but_train_nothing(workspace: Path) -> None:
    from causerie.core import CauserieError
    from causerie.feedback import TrainingSetConfig, training_set

    write_jsonl(workspace / "in.jsonl", [STANDARD["prompt-only"], STANDARD["language-modeling"], STANDARD["stepwise"]])
    import_feedback(FeedbackImportConfig((workspace / "in.jsonl",)), workspace)
    with open_store(workspace) as store, pytest.raises(CauserieError, match="CAU-1306") as raised:
        training_set(TrainingSetConfig(), workspace, store)
    assert "signals_imported_steps 1" in raised.value.cause
