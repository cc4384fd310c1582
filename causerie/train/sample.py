"""A few greedy words from a model in training, to see what it has learnt. Real generation lives in `infer`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from causerie.model import Transformer
from causerie.text import Tokenizer


def continue_greedily(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int = 24
) -> list[str]:
    """Each prompt with its most likely continuation, up to `max_tokens` tokens or the document's end.

    The whole row is run again for every token: no cache, fit for small models and few tokens only.
    """
    return [_continue(model, tokenizer, prompt, max_tokens) for prompt in prompts]


@torch.no_grad()
def _continue(model: Transformer, tokenizer: Tokenizer, prompt: str, max_tokens: int) -> str:
    ids = [tokenizer.eot_id, *tokenizer.encode(prompt)]
    device = next(model.parameters()).device
    for _ in range(max_tokens):
        hidden = model(torch.tensor([ids], device=device))
        best = int(model.logits(hidden[0, -1]).argmax())
        if best == tokenizer.eot_id:
            break
        ids.append(best)
    return tokenizer.decode(ids[1:])
