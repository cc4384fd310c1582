"""From the micro-batches of an update to its gradient, on one process or many, and what is known about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from causerie.model import Transformer
from causerie.train.config import TrainSettings
from causerie.train.machine import autocast
from causerie.train.objective import Batch, LossParts, Objective
from causerie.train.optim import Optimizers
from causerie.train.world import TreeSum, World, check_parts, fixed_tree


@dataclass(frozen=True)
class Sums:
    """An update's mean loss, gradient norm before clipping, mean metrics and tokens seen."""

    loss: float
    grad_norm: float
    metrics: dict[str, float]
    seen: int

    @property
    def finite(self) -> bool:
        """Whether the update may be applied."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


@dataclass
class _Counted:
    """Sums over this process's micro-batches; tensors stay where they are until all are done."""

    loss: list[Tensor] = field(default_factory=list)
    n_tokens: list[Tensor | float] = field(default_factory=list)
    metrics: dict[str, list[Tensor | float]] = field(default_factory=dict)
    seen: int = 0

    def add(self, parts: LossParts) -> None:
        self.loss.append(parts.loss_sum.detach())
        self.n_tokens.append(parts.n_tokens)
        self.seen += parts.seen or int(parts.n_tokens)
        for name, value in (parts.metrics or {}).items():
            self.metrics.setdefault(name, []).append(value)


@dataclass
class Gradients:
    """Computes gradients: those of the mean loss over all micro-batches of all processes, clipped."""

    model: Transformer
    objective: Objective
    optimizers: Optimizers
    settings: TrainSettings
    world: World
    bf16: bool

    def compute(self, micro: Sequence[Batch]) -> Sums:
        """Fill the parameters' gradients; the same `Sums` on every process.

        Raises:
            CauserieError: CAU-4006 when the micro-batches do not divide among the processes.
        """
        self.optimizers.zero_grad()
        self.model.train()
        exact = self.settings.exact_parts
        check_parts(self.world, exact, len(micro))
        share = len(micro) // self.world.data_size
        mine = micro[self.world.data_rank * share : (self.world.data_rank + 1) * share]
        counted = self._in_tree(mine) if exact else self._in_turn(mine)
        names = sorted(counted.metrics)
        columns: list[Sequence[Tensor | float]] = [
            counted.loss,
            counted.n_tokens,
            *(counted.metrics[name] for name in names),
        ]
        sums = self.world.total([math.fsum(float(v) for v in column) for column in columns] + [float(counted.seen)])
        loss, n_tokens, *metrics, seen = sums
        averaged = 1 if exact else self.world.data_size  # FSDP2 has averaged the sums over these
        norm = self.optimizers.scale_and_clip(n_tokens / averaged, self.settings.grad_clip) if n_tokens else math.nan
        divisor = n_tokens or math.nan
        means = {name: value / divisor for name, value in zip(names, metrics, strict=True)}
        return Sums(loss / divisor, norm, means, int(seen))

    def _in_turn(self, micro: Sequence[Batch]) -> _Counted:
        counted = _Counted()
        for batch in micro:
            counted.add(self._run(batch))
        return counted

    def _in_tree(self, micro: Sequence[Batch]) -> _Counted:
        counted, mine = _Counted(), TreeSum()
        parameters = self.optimizers.parameters()
        for batch in micro:
            counted.add(self._run(batch))
            mine.add([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
            self.optimizers.zero_grad()
        for parameter, partial in zip(parameters, mine.result(), strict=True):
            parameter.grad = fixed_tree(self.world.gather(partial), torch.add)
        return counted

    def _run(self, batch: Batch) -> LossParts:
        device = self.world.device
        moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        with autocast(device, self.bf16):
            parts = self.objective(self.model, moved)
        torch.autograd.backward(parts.loss_sum)
        return parts

    def digest(self) -> str:
        """Digest of this process's gradients, bit for bit."""
        digest = hashlib.sha256()
        for gradient in self.optimizers.gradients():
            local: Tensor = getattr(gradient, "_local_tensor", gradient)
            digest.update(local.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
