"""What becomes of a sequence in a step: what it may say next, and the event that tells what it said."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from causerie.infer.request import Event, Finish
from causerie.infer.scheduler import Sequence


def generates(sequence: Sequence) -> bool:
    """Whether tokens are sampled for a sequence: not for embeddings, nor where only the prompt is scored."""
    return sequence.pooling is None and sequence.sampling.max_tokens > 0


def event_of(sequence: Sequence, finish: Finish | None, **told: Any) -> Event:
    """The event of a sequence; `told` are further fields. The first one carries the prompt's log-probabilities."""
    if sequence.sampling.prompt_logprobs and sequence.n_completion <= 1 and finish != "cancelled":
        told["prompt_logprobs"] = sequence.prompt_logprobs
        if sequence.sampling.top_logprobs:
            told["prompt_top_logprobs"] = sequence.prompt_top
    return Event(
        sequence.request_id,
        finish=finish,
        prompt_tokens=sequence.n_prompt,
        completion_tokens=sequence.n_completion,
        cached_tokens=max(sequence.cached_tokens, 0),
        **told,
    )


def allowed_ids(sequence: Sequence, vocab_size: int, device: torch.device) -> Tensor | None:
    """(V,) bool of what the grammar allows now, with the request's stop ids where the completion may end.

    None when that is nothing, because the grammar became too complex on the way: `accept` then refuses any token.
    """
    matcher = sequence.matcher
    assert matcher is not None
    allowed = torch.from_numpy(matcher.mask().view("uint8")).to(device)
    bits = torch.arange(8, dtype=torch.uint8, device=device)
    allowed = ((allowed[:, None] >> bits) & 1).bool().flatten()[:vocab_size]
    stops = [token for token in sequence.stops if 0 <= token < vocab_size]
    if stops:
        allowed[stops] = matcher.may_stop
    return allowed if bool(allowed.any()) else None
