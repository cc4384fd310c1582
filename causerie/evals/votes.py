"""Suite `votes`: does the model agree with people's thumbs on single answers?

Per vote the answer's log-probability per token, counted with its sign: plus for a liked answer, minus for a disliked
one. The figure alone says little (answers differ in how likely they are); its paired difference between two models
does: it is above 0 when liked answers became likelier, or disliked ones less likely, than under the other model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causerie.align import encode_answer, encode_prompt, fit_length
from causerie.core import CauserieError, sha256_json
from causerie.evals.results import Item, Metric, SuiteResult
from causerie.evals.rows import at_least_one, messages_field, named, read_rows, spread, text_field
from causerie.evals.subject import Scored, Subject

METRICS = (
    Metric("agreement", "higher", "nats per token, plus for liked and minus for disliked answers; read differences"),
    Metric("liked_nats_per_token", "lower", "nats per token of liked answers"),
    Metric("disliked_nats_per_token", "neither", "nats per token of disliked answers"),
)


@dataclass(frozen=True)
class Vote:
    """An answer somebody liked or disliked; `cluster` names the prompt."""

    id: str
    prompt: list[dict[str, str]]
    answer: str
    liked: bool
    cluster: str


def run(subject: Subject, votes: Path) -> SuiteResult:
    """Score single answers.

    Args:
        subject: the model.
        votes: preferences folder (its `heldout-unpaired.jsonl`) or JSONL of `{"prompt", "completion", "label"}`.

    Raises:
        CauserieError: CAU-1001, CAU-1006, CAU-1204, CAU-4203, CAU-4204.
    """
    path = votes / "heldout-unpaired.jsonl" if votes.is_dir() else votes
    found = spread(at_least_one(read_votes(path), path), subject.config.limit_of("votes"))
    sequences, cut = [], 0
    for vote in found:
        prompt, answer = encode_prompt(subject.chat, vote.prompt), encode_answer(subject.chat, vote.answer)
        kept_prompt, (kept,) = fit_length(prompt, (answer,), subject.max_length)
        cut += (kept_prompt, kept) != (prompt, answer)
        sequences.append(Scored.after(kept_prompt, kept))
    scored = subject.log_probs(sequences, "votes")
    items = tuple(_item(vote, float(v.sum()), len(v)) for vote, v in zip(found, scored, strict=True))
    return SuiteResult("votes", METRICS, items, {"answers cut at max_length": cut})


def read_votes(path: Path) -> list[Vote]:
    """Votes of a JSONL file."""
    found = []
    for name, where, row in named(read_rows(path)):
        prompt, liked = messages_field(row, "prompt", where), row.get("label")
        if not isinstance(liked, bool):
            raise CauserieError("CAU-4204", "label should be true or false", where=where, fix="mend the row")
        cluster = str(row.get("prompt_key") or sha256_json(prompt)[:12])
        found.append(Vote(name, prompt, text_field(row, "completion", where), liked, cluster))
    return found


def _item(vote: Vote, log_prob: float, tokens: int) -> Item:
    side = "liked_nats_per_token" if vote.liked else "disliked_nats_per_token"
    values = {"agreement": (1 if vote.liked else -1) * log_prob / tokens, side: -log_prob}
    detail = {"liked": vote.liked, "tokens": tokens, "prompt": vote.prompt[-1]["content"][:200]}
    return Item(id=vote.id, values=values, weights={side: tokens}, cluster=vote.cluster, detail=detail)
