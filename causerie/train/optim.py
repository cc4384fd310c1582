"""Optimisers: Muon for the matrices inside the blocks, AdamW for embeddings, head, gains and adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from causerie.model import Transformer
from causerie.train.config import TrainSettings

ADAM_BETAS = (0.9, 0.95)
REFERENCE_WIDTH = 256
REFERENCE_BATCH_TOKENS = 4096


@dataclass
class Optimizers:
    """The optimisers of a run as one; every parameter group carries its peak learning rate as `peak_lr`."""

    parts: list[torch.optim.Optimizer] = field(default_factory=list)

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that is trained, in order."""
        return [p for part in self.parts for group in part.param_groups for p in group["params"]]

    def set_lr(self, factor: float) -> float:
        """Set every group's learning rate to `factor` of its peak; returns the first group's."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["peak_lr"] * factor
        return float(self.parts[0].param_groups[0]["lr"])

    def step(self) -> None:
        """Apply the gradients."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def scale_and_clip(self, divisor: float, largest: float) -> float:
        """Divide the gradients by `divisor`, then scale them to norm `largest` if they exceed it (0: never).

        Returns:
            The norm after the division and before the clipping.
        """
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if not gradients:
            return math.nan
        norm = float(nn.utils.get_total_norm(gradients)) / divisor
        if not math.isfinite(norm):
            return norm
        factor = min(1.0, largest / (norm + 1e-12)) if largest else 1.0
        torch._foreach_mul_(gradients, factor / divisor)
        return norm


def make_optimizers(model: Transformer, settings: TrainSettings) -> Optimizers:
    """The optimisers for every parameter of `model` that requires gradients.

    Muon takes the two-dimensional weights that are neither embedding nor head (those have `vocab_size` rows).
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    gains: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            gains.append(parameter)
        elif parameter.shape[0] == model.shape.vocab_size:
            others.append(parameter)
        else:
            matrices.append(parameter)
    parts: list[torch.optim.Optimizer] = []
    lr = settings.lr or default_lr(model, settings)
    plain = [_group(others, lr, 0.0), _group(gains, lr, 0.0)]
    if settings.optimizer == "muon" and matrices:
        peak = settings.matrix_lr or default_matrix_lr(settings)
        parts.append(torch.optim.Muon([_group(matrices, peak, settings.weight_decay)]))
    else:
        plain.insert(0, _group(matrices, lr, settings.weight_decay))
    plain = [group for group in plain if group["params"]]
    if plain:
        parts.append(torch.optim.AdamW(plain, lr=lr, betas=ADAM_BETAS, eps=1e-10, fused=True))
    return Optimizers(parts)


def default_lr(model: Transformer, settings: TrainSettings) -> float:
    """AdamW's peak learning rate: falls with the width and grows with the square root of the batch's tokens.

    Embeddings and gains beside Muon: 6e-3 at width 256 and 4,096 tokens. AdamW alone: 2e-3 there.
    """
    width = math.sqrt(REFERENCE_WIDTH / model.shape.n_embd)
    base = 6e-3 if settings.optimizer == "muon" else 2e-3
    return base * width * _batch_factor(settings)


def default_matrix_lr(settings: TrainSettings) -> float:
    """Muon's peak learning rate: 0.02 at 4,096 tokens a batch; it needs no rule for the width."""
    return 0.02 * _batch_factor(settings)


def _batch_factor(settings: TrainSettings) -> float:
    tokens = settings.batch_size * settings.seq_len
    return min(2.0, math.sqrt(tokens / REFERENCE_BATCH_TOKENS))


def _group(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> dict[str, list[nn.Parameter] | float]:
    return {"params": parameters, "lr": lr, "peak_lr": lr, "weight_decay": weight_decay}


def count_trainable(model: Transformer) -> int:
    """Number of weights that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
