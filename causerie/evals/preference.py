"""Suite `preference`: does the model find the answer that people chose more likely than the one they rejected?

Per pair, `log p(chosen | prompt) − log p(rejected | prompt)`, summed over tokens (end-of-turn included) and per token;
with a reference model also DPO's implicit margin, the policy's difference minus the reference's (Rafailov et al. 2023,
arXiv:2305.18290). Accuracy is no gate by itself: a collapsed model can reach 1.00. The share of pairs in which the
longer answer was chosen stands beside it, because a rule as plain as "longer wins" is often far from one half.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from causerie.align import encode_answer, encode_prompt, fit_length
from causerie.core import sha256_json
from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import at_least_one, messages_field, named, read_rows, spread, text_field
from causerie.evals.subject import Scored, Subject

METRICS = (
    Metric("accuracy", "higher", "pairs whose chosen answer has the higher summed log-probability; a tie counts half"),
    Metric("accuracy_per_token", "higher", "the same with log-probabilities per token"),
    Metric("margin", "higher", "nats, chosen minus rejected, summed"),
    Metric("margin_per_token", "higher", "nats per token, chosen minus rejected"),
    Metric("chosen_nats_per_token", "lower", "nats per token of the chosen answers"),
    Metric("longer_wins", "neither", "pairs whose chosen answer has more tokens: what a length rule would score"),
)
WITH_REFERENCE = (
    Metric("implicit_accuracy", "higher", "pairs whose margin is above the reference's; a tie counts half"),
    Metric("implicit_margin", "higher", "nats, the model's margin minus the reference's"),
)


@dataclass(frozen=True)
class Pair:
    """A preference with its prompt; `cluster` names the prompt."""

    id: str
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str
    cluster: str


@dataclass(frozen=True)
class _Sums:
    """Summed log-probability and token count of each side of a pair."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int


def run(subject: Subject, pairs: Path) -> SuiteResult:
    """Score pairs.

    Args:
        subject: the model; `config.reference` is scored too when given.
        pairs: preferences folder (its `heldout-pairs.jsonl`) or JSONL file of `{"prompt", "chosen", "rejected"}`.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-1204, CAU-4203, CAU-4204.
    """
    found = read_pairs(
        pairs / "heldout-pairs.jsonl" if pairs.is_dir() else pairs, subject.config.limit_of("preference")
    )
    sums, cut = _score(subject, found, "preference")
    reference: list[_Sums] | None = None
    if subject.config.reference is not None:
        other = Subject(subject.config.reference, replace(subject.config, reference=None))
        reference, _ = _score(other, found, "preference, reference")
    items = tuple(
        _item(pair, sums[index], None if reference is None else reference[index]) for index, pair in enumerate(found)
    )
    metrics = METRICS + (WITH_REFERENCE if reference is not None else ())
    return SuiteResult("preference", metrics, items, {"pairs cut at max_length": cut})


def read_pairs(path: Path, limit: int) -> list[Pair]:
    """Pairs of a JSONL file, evenly sampled down to `limit`."""
    found = []
    for name, where, row in named(read_rows(path)):
        prompt = messages_field(row, "prompt", where)
        cluster = str(row.get("prompt_key") or sha256_json(prompt)[:12])
        found.append(Pair(name, prompt, text_field(row, "chosen", where), text_field(row, "rejected", where), cluster))
    return spread(at_least_one(found, path), limit)


def _score(subject: Subject, pairs: list[Pair], label: str) -> tuple[list[_Sums], int]:
    sequences, cut = [], 0
    for pair in pairs:
        prompt = encode_prompt(subject.chat, pair.prompt)
        answers = encode_answer(subject.chat, pair.chosen), encode_answer(subject.chat, pair.rejected)
        kept_prompt, kept = fit_length(prompt, answers, subject.max_length)
        cut += (kept_prompt, kept) != (prompt, answers)
        sequences += [Scored.after(kept_prompt, answer) for answer in kept]
    values = subject.log_probs(sequences, label)
    return [
        _Sums(float(first.sum()), float(second.sum()), len(first), len(second))
        for first, second in zip(values[::2], values[1::2], strict=True)
    ], cut


def _item(pair: Pair, sums: _Sums, reference: _Sums | None) -> Item:
    margin = sums.chosen - sums.rejected
    per_token = sums.chosen / sums.chosen_tokens - sums.rejected / sums.rejected_tokens
    values = {
        "accuracy": _wins(margin),
        "accuracy_per_token": _wins(per_token),
        "margin": margin,
        "margin_per_token": per_token,
        "chosen_nats_per_token": -sums.chosen,
        "longer_wins": _wins(sums.chosen_tokens - sums.rejected_tokens),
    }
    if reference is not None:
        implicit = margin - (reference.chosen - reference.rejected)
        values |= {"implicit_accuracy": _wins(implicit), "implicit_margin": implicit}
    return Item(
        id=pair.id,
        values=values,
        weights={"chosen_nats_per_token": sums.chosen_tokens},
        cluster=pair.cluster,
        detail={
            "log_p_chosen": sums.chosen,
            "log_p_rejected": sums.rejected,
            "prompt": pair.prompt[-1]["content"][:200],
        },
    )


def _wins(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)
