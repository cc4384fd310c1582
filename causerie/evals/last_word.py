"""Suite `last_word`: guess the last word of a passage (LAMBADA, Paperno et al. 2016, arXiv:1606.06031).

A word counts as right when greedy decoding would have written it whole. Contexts and words are split and scored as
lm-evaluation-harness's `lambada_openai` does; its perplexity is e to the power of `nats_per_word`.
"""

from __future__ import annotations

from pathlib import Path

from causerie.core import CauserieError
from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import Row, at_least_one, named, read_rows, spread, text_field
from causerie.evals.subject import Subject

METRICS = (
    Metric("right", "higher", "last words that greedy decoding writes whole"),
    Metric(
        "nats_per_word", "lower", "negative log-probability of the last word; LAMBADA's perplexity is its exponential"
    ),
)


def run(subject: Subject, passages: Path) -> SuiteResult:
    """Guess last words.

    Args:
        subject: the model.
        passages: JSONL (.gz and .zst allowed) of {"text"}, or of {"context", "continuation"}.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-4203, CAU-4204.
    """
    rows = [(name, *split_passage(row, where)) for name, where, row in named(read_rows(passages))]
    chosen = spread(at_least_one(rows, passages), subject.config.limit_of("last_word"))
    found = subject.greedy([subject.continued(context, f" {word}") for _, context, word in chosen], "last_word")
    items = tuple(
        Item(
            id=name,
            values={"right": float(greedy), "nats_per_word": -float(values.sum())},
            detail={"word": word, "tokens": len(values)},
        )
        for (name, _, word), (values, greedy) in zip(chosen, found, strict=True)
    )
    return SuiteResult("last_word", METRICS, items)


def split_passage(row: Row, where: str) -> tuple[str, str]:
    """A passage without its last word, and the word.

    Raises:
        CauserieError: CAU-4204 when there are not two words.
    """
    if "text" in row:
        text = text_field(row, "text", where)
    else:
        text = f"{text_field(row, 'context', where).rstrip()} {text_field(row, 'continuation', where).strip()}"
    context, _, word = text.strip().rpartition(" ")
    if not context:
        fix = 'give {"text": "a passage of several words"}'
        raise CauserieError("CAU-4204", "a passage needs a word and a word before it", where=where, fix=fix)
    return context, word
