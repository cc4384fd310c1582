"""What the loop and its objectives say to each other: batches in, summed losses out, figures from callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from causerie.model import Transformer

Batch = Mapping[str, Tensor]
"""A micro-batch: named tensors, made on the CPU; `fit` moves them to the model's device."""


class LossParts(NamedTuple):
    """What an objective returns for one micro-batch: sums, so that micro-batches add up to the whole batch exactly."""

    loss_sum: Tensor
    """Scalar with gradient: the loss summed over its units (tokens, or pairs for preference objectives)."""
    n_tokens: Tensor | float
    """How many units `loss_sum` is a sum of, or their summed weights; the mean is taken over all micro-batches."""
    metrics: Mapping[str, Tensor | float] | None = None
    """Figures to log, as sums over the same units."""
    seen: int = 0
    """Tokens that went through the model, padding not counted, for tokens/s; 0 means `n_tokens`."""


Objective = Callable[[Transformer, Batch], LossParts]


class Batches(Protocol):
    """Training data as a pure function of the step."""

    @property
    def fingerprint(self) -> str:
        """Digest of the data, their order and their shapes; a checkpoint made with another one is refused."""
        ...

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of update `step` (from 0)."""
        ...


@dataclass(frozen=True)
class Callback:
    """Something to do beside the updates (evaluate, sample): before the first, every `every`, and after the last.

    `call(model, step)` runs without gradients and in eval mode and returns figures, which are logged as event
    `event` and kept in `FitResult.evaluations`. It must not change the model.
    """

    call: Callable[[Transformer, int], Mapping[str, Any] | None]
    event: str = "eval"
    every: int = 0
    """Updates between calls; 0 means only before and after."""
    best: str = ""
    """Figure whose lowest value marks the best checkpoint, which is kept; "" for none."""


@dataclass(frozen=True)
class FitResult:
    """How a run went, counted over all its sittings unless said otherwise."""

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    """Median of this sitting's updates, the first three left out; evaluation and checkpoints not counted."""
    loss: float
    """Mean loss of the last ten updates."""
    bad_steps: int
    """Updates skipped for an infinite or undefined loss or gradient."""
    compiled: bool
    precision: str
    evaluations: tuple[dict[str, Any], ...]
    """What the callbacks returned, in order, with "event" and "step" added."""
    spikes: int = 0
    """Updates skipped by the spike rule."""
    peak_share: float = 0.0
    """GFLOP/s over the device's measured peak of matrix products (MFU); 0 where it was not measured."""
    goodput: float = 0.0
    """Time in updates that count and in evaluations over the wall-clock time of all sittings, lost updates included."""
    evaluation_share: float = 0.0
    """The part of it that went into evaluations."""
    best_step: int = -1
    """Update whose evaluation was the best; -1 without one."""

    def figures(self, event: str = "eval") -> list[dict[str, Any]]:
        """The evaluations of one kind, in order: the first is from before the first update, the last from after."""
        return [row for row in self.evaluations if row["event"] == event]
