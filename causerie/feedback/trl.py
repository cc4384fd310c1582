"""Feedback as the dataset types of TRL, as message lists ("conversational") or plain texts ("standard").

Language modeling, prompt-only, prompt-completion, preference with explicit and with implicit prompt, unpaired
preference, stepwise supervision (standard only, as in TRL). Plain texts hold one question and its answer; what has
more turns, or a system message, is counted as left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from causerie.feedback.derive import Derived
from causerie.feedback.standing import Records

Row = dict[str, Any]
Style = Literal["conversational", "standard"]

JOIN: Final = "\n\n"
"""Between question and answer where a plain text holds both."""


def trl_rows(form: str, style: Style, records: Records, derived: Derived) -> tuple[list[Row], Counter[str]]:
    """Rows of one dataset type, and how many were left out for which reason.

    Args:
        form: "language-modeling", "prompt-only", "prompt-completion", "preference", "implicit-preference",
            "unpaired-preference" or "stepwise".
        style: message lists or plain texts.
        records: the signals that may be used, with their answers.
        derived: pairs, labels and demonstrations made of them.
    """
    left_out: Counter[str] = Counter()
    makers: Mapping[str, Callable[[], Iterable[Row | None]]] = {
        "language-modeling": lambda: _language_modeling(style, records, derived),
        "prompt-only": lambda: _prompts(style, records),
        "prompt-completion": lambda: (_completion(row, style) for row in derived.sft),
        "preference": lambda: (_preference(row, style) for row in derived.pairs),
        "implicit-preference": lambda: (_implicit(row, style) for row in derived.pairs),
        "unpaired-preference": lambda: (_unpaired(row, style) for row in derived.unpaired),
        "stepwise": lambda: _steps(records),
    }
    rows = []
    for row in makers[form]():
        if row is None:
            left_out["not_one_question_and_answer"] += 1
        else:
            rows.append(row)
    return rows, left_out


def _plain(prompt: list[dict[str, str]]) -> str | None:
    """The question, when the prompt is nothing but one."""
    return prompt[0]["content"] if len(prompt) == 1 and prompt[0]["role"] == "user" else None


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _language_modeling(style: Style, records: Records, derived: Derived) -> Iterable[Row | None]:
    for signal in records.signals:
        if signal.kind == "imported_text":
            text = records.exposures[signal.exposure_id].text
            yield {"text": text} if style == "standard" else {"messages": _said(text)}
    for row in derived.sft:
        if style == "conversational":
            yield {"messages": row["messages"]}
        else:
            question = _plain(row["messages"][:-1])
            yield None if question is None else {"text": question + JOIN + row["messages"][-1]["content"]}


def _prompts(style: Style, records: Records) -> Iterable[Row | None]:
    seen: set[str] = set()
    for signal in records.signals:
        shown = records.exposures[signal.exposure_id]
        if shown.prompt_key in seen or signal.kind in ("imported_text", "imported_steps"):
            continue
        seen.add(shown.prompt_key)
        yield _row([dict(message) for message in shown.prompt], style, {})


def _completion(row: Row, style: Style) -> Row | None:
    return _row(row["messages"][:-1], style, {"completion": row["messages"][-1]["content"]})


def _preference(row: Row, style: Style) -> Row | None:
    return _row(row["prompt"], style, {"chosen": row["chosen"], "rejected": row["rejected"]})


def _implicit(row: Row, style: Style) -> Row | None:
    if style == "conversational":
        return {side: [*row["prompt"], *_said(row[side])] for side in ("chosen", "rejected")}
    question = _plain(row["prompt"])
    return None if question is None else {side: question + JOIN + row[side] for side in ("chosen", "rejected")}


def _unpaired(row: Row, style: Style) -> Row | None:
    made = _row(row["prompt"], style, {"completion": row["completion"]})
    return None if made is None else {**made, "label": row["label"]}


def _row(prompt: list[dict[str, str]], style: Style, answers: Mapping[str, str]) -> Row | None:
    if style == "conversational":
        return {"prompt": prompt, **{name: _said(text) for name, text in answers.items()}}
    question = _plain(prompt)
    return None if question is None else {"prompt": question, **answers}


def _steps(records: Records) -> Iterable[Row | None]:
    for signal in records.signals:
        if signal.kind == "imported_steps":
            question = _plain([dict(message) for message in records.exposures[signal.exposure_id].prompt])
            steps, labels = list(signal.value["steps"]), list(signal.value["labels"])
            yield None if question is None else {"prompt": question, "completions": steps, "labels": labels}
