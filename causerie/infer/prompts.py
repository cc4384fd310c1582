"""What is read from a prompt's own hidden states: its tokens' log-probabilities, and its embedding."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many

from torch import Tensor

from causerie.infer.sampler import log_probs_of
from causerie.infer.scheduler import Work

ROWS = 64
"""Rows of logits held at once while a prompt is scored."""


def reads_prompt(item: Work) -> bool:
    """Whether anything is asked of the hidden states of a chunk of a prompt."""
    sequence = item.sequence
    scored = sequence.sampling.prompt_logprobs and item.start < sequence.n_prompt and sequence.n_completion == 0
    return sequence.pooling is not None or scored


def read_prompts(work: Many[Work], hidden: Tensor, head: Callable[[Tensor], Tensor]) -> None:
    """Note in the sequences what their prompts' hidden states say, where it was asked for.

    Args:
        work: one step's, in order.
        hidden: (N, D) after the final norm, of all its tokens.
        head: from hidden states to logits.
    """
    first = 0
    for item in work:
        part = hidden[first : first + item.count]
        first += item.count
        if not reads_prompt(item):
            continue
        if item.sequence.pooling is not None:
            _pool(item, part)
        else:
            _score(item, part, head)


def _pool(item: Work, hidden: Tensor) -> None:
    """Sum up, or keep the last, of a chunk's hidden states (n, D); a text begun anew begins a new sum."""
    sequence = item.sequence
    if sequence.pooling == "last":
        sequence.pooled = hidden[-1].float()
        return
    total = hidden.float().sum(dim=0)
    sequence.pooled = total if item.start == 0 or sequence.pooled is None else sequence.pooled + total


def _score(item: Work, hidden: Tensor, head: Callable[[Tensor], Tensor]) -> None:
    """Score each next token of the prompt from a chunk's hidden states (n, D)."""
    sequence = item.sequence
    if item.start == 0:
        sequence.prompt_logprobs, sequence.prompt_top = [None], [[]]
    targets = sequence.tokens[item.start + 1 : min(item.start + item.count + 1, sequence.n_prompt)]
    for first in range(0, len(targets), ROWS):
        some = targets[first : first + ROWS]
        logits = head(hidden[first : first + len(some)]).float()
        scores, top = log_probs_of(logits, some, sequence.sampling.top_logprobs)
        sequence.prompt_logprobs += scores
        sequence.prompt_top += top
