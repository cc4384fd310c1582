"""Learning rate over a run, as a factor of its peak."""

from __future__ import annotations

import math

from causerie.train.config import TrainSettings


def lr_factor(settings: TrainSettings, step: int, progress: float) -> float:
    """Factor of the peak learning rate for an update: in (0, 1].

    Args:
        settings: `schedule`, `warmup`, `decay_fraction`, `final_lr`; `steps` caps the warm-up at a tenth of the run.
        step: the update's number, from 0.
        progress: share of the run that is behind it, from 0 to 1: of steps, tokens or minutes.

    The warm-up is linear. "wsd" (warm-up, stable, decay) is flat, then linear down to `final_lr` over the last
    `decay_fraction` of the run (Hu et al. 2024, arXiv 2404.06395); "cosine" and "linear" fall over all of it.
    """
    warmup = settings.warmup if settings.steps is None else min(settings.warmup, math.ceil(settings.steps / 10))
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rise * _fall(settings, min(max(progress, 0.0), 1.0))


def _fall(settings: TrainSettings, progress: float) -> float:
    final = settings.final_lr
    if settings.schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    share = 1.0 if settings.schedule == "linear" else settings.decay_fraction
    into = 0.0 if share == 0 else max(0.0, (progress - (1 - share)) / share)
    return 1 - (1 - final) * into
