"""Suite `ending`: does the model end its answers by itself, at what length, and does it loop?

The cheap guards that caught a collapsed preference run where pair accuracy said 1.00: answers that never end, empty
answers, answers that repeat themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import at_least_one, messages_field, named, read_rows, spread
from causerie.evals.subject import Answer, Subject

GRAM = 4
METRICS = (
    Metric("ended", "higher", "answers the model ended by itself within max_tokens"),
    Metric("empty", "lower", "answers without any visible character"),
    Metric("repetition", "lower", f"share of an answer's token {GRAM}-grams that occurred before in it"),
    Metric("answer_tokens", "neither", "tokens per answer, end-of-turn not counted"),
)


def run(subject: Subject, prompts: Path) -> SuiteResult:
    """Answer prompts and look at how the answers end.

    Args:
        subject: the model.
        prompts: JSONL of `{"prompt": text or messages}` or chat rows, whose last user turn is answered.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-1204, CAU-4203, CAU-4204.
    """
    rows = spread(at_least_one(read_prompts(prompts), prompts), subject.config.limit_of("ending"))
    encoded = [subject.chat.prompt(messages)[-subject.max_length :] for _, messages in rows]
    answers = subject.answers(encoded, "ending")
    items = tuple(_item(name, messages, answer) for (name, messages), answer in zip(rows, answers, strict=True))
    return SuiteResult("ending", METRICS, items)


def read_prompts(path: Path) -> list[tuple[str, list[dict[str, str]]]]:
    """Conversations that end with a user turn, each with its id; answers at the end of chat rows are left off."""
    found = []
    for name, where, row in named(read_rows(path)):
        messages = messages_field(row, "prompt" if "prompt" in row else "messages", where)
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        if messages:
            found.append((name, messages))
    return found


def repetition(ids: Sequence[int]) -> float:
    """Share of the sequence's 4-grams that already occurred in it; 0 for sequences shorter than two 4-grams."""
    grams = [tuple(ids[start : start + GRAM]) for start in range(len(ids) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _item(name: str, messages: list[dict[str, str]], answer: Answer) -> Item:
    values = {
        "ended": float(answer.ended),
        "empty": float(not answer.text.strip()),
        "repetition": repetition(answer.ids),
        "answer_tokens": float(answer.tokens),
    }
    return Item(id=name, values=values, detail={"prompt": messages[-1]["content"][:500], "answer": answer.text})
