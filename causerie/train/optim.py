"""Optimisers: Muon for the matrices inside the blocks, AdamW for embeddings, head, gains and adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from causerie.model import Transformer
from causerie.train.config import TrainSettings
from causerie.train.muon import BatchedMuon
from causerie.train.rules import default_lr, default_matrix_lr

ADAM_BETAS = (0.9, 0.95)


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
        cautious = [group for part in self.parts for group in part.param_groups if group.get("cautious_decay")]
        before = [[p.detach().clone() for p in group["params"]] for group in cautious]
        for part in self.parts:
            part.step()
        for group, old in zip(cautious, before, strict=True):
            for parameter, weight in zip(group["params"], old, strict=True):
                _decay_cautiously(parameter, weight, group["lr"] * group["cautious_decay"])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def gradients(self) -> list[Tensor]:
        """The gradients there are, in the parameters' order."""
        return [p.grad for p in self.parameters() if p.grad is not None]

    def scale_and_clip(self, divisor: float, largest: float) -> float:
        """Divide the gradients by `divisor`, then scale them to norm `largest` if they exceed it (0: never).

        Returns:
            The norm after the division and before the clipping; with sharded parameters that of the whole gradient.
        """
        gradients = self.gradients()
        if not gradients:
            return math.nan
        sharded = any(hasattr(gradient, "full_tensor") for gradient in gradients)
        norm = (_sharded_norm(gradients) if sharded else float(nn.utils.get_total_norm(gradients))) / divisor
        if not math.isfinite(norm):
            return norm
        factor = min(1.0, largest / (norm + 1e-12)) if largest else 1.0
        if sharded:
            for gradient in gradients:  # of several meshes, which the fused form does not take
                gradient.mul_(factor / divisor)
        else:
            torch._foreach_mul_(gradients, factor / divisor)
        return norm


def _sharded_norm(gradients: list[Tensor]) -> float:
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    return math.hypot(*(float(n.full_tensor() if hasattr(n, "full_tensor") else n) for n in norms))


@torch.no_grad()
def _decay_cautiously(parameter: nn.Parameter, before: Tensor, factor: float) -> None:
    """Decay the weights whose magnitude the update has lowered; the others keep what the gradient wants."""
    lowered = (before - parameter) * before > 0
    parameter.sub_(before * lowered, alpha=factor)


def make_optimizers(model: Transformer, settings: TrainSettings) -> Optimizers:
    """The optimisers for every parameter of `model` that requires gradients.

    Muon takes the two-dimensional weights that are neither embedding nor output projection.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    gains: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            gains.append(parameter)
        elif name.startswith(("embed_", "lm_head.")):
            others.append(parameter)
        else:
            matrices.append(parameter)
    parts: list[torch.optim.Optimizer] = []
    lr = settings.lr or default_lr(model.shape.n_embd, settings)
    plain = [_group(others, lr), _group(gains, lr)]
    decay, cautious = (0.0, settings.weight_decay) if settings.cautious_decay else (settings.weight_decay, 0.0)
    if settings.optimizer == "muon" and matrices:
        peak = settings.matrix_lr or default_matrix_lr(settings)
        parts.append(BatchedMuon([_group(matrices, peak, decay, cautious)]))
    else:
        plain.insert(0, _group(matrices, lr, decay, cautious))
    plain = [group for group in plain if group["params"]]
    if plain:
        parts.append(torch.optim.AdamW(plain, lr=lr, betas=ADAM_BETAS, eps=1e-10, fused=True))
    return Optimizers(parts)


def _group(
    parameters: list[nn.Parameter], lr: float, weight_decay: float = 0.0, cautious: float = 0.0
) -> dict[str, list[nn.Parameter] | float]:
    return {"params": parameters, "lr": lr, "peak_lr": lr, "weight_decay": weight_decay, "cautious_decay": cautious}


def count_trainable(model: Transformer) -> int:
    """Number of weights that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
