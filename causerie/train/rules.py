"""One dial: from depth to a horizon in tokens, a batch and learning rates.

Sources: the horizon is Chinchilla's 20 tokens a parameter (arXiv:2203.15556); the batch grows with the horizon to the
power 0.383 from 2^19 tokens at 1.3 B (fitted by nanochat on its miniseries), held to at least 1,500 updates a run,
which matters for small models; learning rates grow with the square root of the batch and fall with the square root of
the width, and beyond 2.6 B tokens with the horizon to the power 0.3 (Marin's Delphi runs needed that to extrapolate).
The batch and horizon laws are taken over, not yet measured here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from causerie.model import ModelShape
from causerie.train.config import PretrainConfig, TrainSettings

TOKENS_PER_PARAMETER: Final = 20
REFERENCE_WIDTH: Final = 256
REFERENCE_BATCH_TOKENS: Final = 4096
FEWEST_UPDATES: Final = 1500
SMALLEST_BATCH: Final = 2048
LONG_HORIZON: Final = 2.6e9


def horizon(shape: ModelShape) -> int:
    """Tokens that a model of this shape is worth training on: 20 for each parameter that is multiplied."""
    return TOKENS_PER_PARAMETER * shape.n_matrix_params


def batch_tokens(tokens: int) -> int:
    """Tokens per update for a run of `tokens`: a power of two of at least 2,048."""
    wanted = 2**19 * (tokens / 1.3e9) ** 0.383
    wanted = max(SMALLEST_BATCH, min(wanted, tokens / FEWEST_UPDATES))
    return 1 << math.floor(math.log2(wanted))


def by_rule(config: PretrainConfig, shape: ModelShape) -> PretrainConfig:
    """The settings with a horizon, where there is no limit at all, and with a batch size, where it is 0."""
    tokens = config.tokens
    if tokens is None and config.steps is None and config.minutes is None:
        tokens = horizon(shape)
    rows = config.batch_size
    if not rows:
        rows = max(1, (REFERENCE_BATCH_TOKENS if tokens is None else batch_tokens(tokens)) // config.seq_len)
    return replace(config, tokens=tokens, batch_size=rows)


def default_lr(n_embd: int, settings: TrainSettings) -> float:
    """AdamW's peak learning rate: falls with the width and grows with the square root of the batch's tokens.

    Embeddings and gains beside Muon: 6e-3 at width 256 and 4,096 tokens. AdamW alone: 2e-3 there.
    """
    width = math.sqrt(REFERENCE_WIDTH / n_embd)
    base = 6e-3 if settings.optimizer == "muon" else 2e-3
    return base * width * _batch_factor(settings)


def default_matrix_lr(settings: TrainSettings) -> float:
    """Muon's peak learning rate: 0.02 at 4,096 tokens a batch; it needs no rule for the width."""
    return 0.02 * _batch_factor(settings)


def _batch_factor(settings: TrainSettings) -> float:
    tokens = settings.batch_size * settings.seq_len
    long = max(1.0, (settings.tokens or 0) / LONG_HORIZON)
    return float(min(2.0, math.sqrt(tokens / REFERENCE_BATCH_TOKENS)) / long**0.3)
