"""Which tokens a masked language model has to guess: a pure function of the seed and the step. No torch."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import seed_for

SHOWN_AS_MASK: Final = 0.8
SHOWN_AS_RANDOM: Final = 0.1
"""Of the tokens to guess, the shares shown as the mask and as any token; the rest is shown as it is (BERT's recipe)."""


def mask_tokens(
    tokens: NDArray[np.int64], share: float, mask_id: int, n_plain: int, keep: int, seed: int, step: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Hide tokens of a batch.

    Args:
        tokens: (B, T).
        share: of the tokens that are to be guessed; every row has at least one.
        mask_id: the token that stands for a hidden one.
        n_plain: ids below this are ordinary tokens, from which random ones are drawn.
        keep: a token that is never hidden (the one that opens documents).
        seed, step: of the run and the update: the same give the same masks, whoever asks.

    Returns:
        What the model sees, (B, T), and which tokens it has to guess, (B, T).
    """
    dice = np.random.Generator(np.random.Philox(seed_for(seed, "masks", step)))
    can = tokens != keep
    draws = np.where(can, dice.random(tokens.shape), 2.0)
    guess = draws < share
    lowest = np.argmin(draws, axis=1)
    rows = np.arange(len(tokens))
    guess[rows, lowest] |= can[rows, lowest]
    way = dice.random(tokens.shape)
    random: NDArray[Any] = dice.integers(0, n_plain, tokens.shape)
    shown = np.where(guess & (way < SHOWN_AS_MASK), mask_id, tokens)
    swapped = guess & (way >= SHOWN_AS_MASK) & (way < SHOWN_AS_MASK + SHOWN_AS_RANDOM)
    return np.where(swapped, random, shown), guess
