"""Queries and keys from their projection to attention in one step: split, normed, turned, their gradient written out.

In parts it is a dozen short operators and copies in each direction, half again as much time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def wants_turned_heads(wide: Tensor, cos: Tensor, head_dim: int) -> bool:
    """Whether `TurnedHeads` should be used: in training on a CPU, in float32, not compiled, where whole heads turn.

    In bf16 it would round otherwise than the parts, with which log-probabilities before an update are computed.
    """
    trained = wide.device.type == "cpu" and wide.requires_grad and torch.is_grad_enabled()
    return trained and wide.dtype == torch.float32 and cos.shape[-1] == head_dim and not torch.compiler.is_compiling()


class TurnedHeads(torch.autograd.Function):
    """rotate(rms_norm(heads)), (B, T, H · Dh) → (B, H, T, Dh) contiguous, in float32, in the input's dtype.

    With u = x · r, r = 1 / sqrt(mean(x²) + eps), n = u · w and the halves of a head (1, 2): y₁ = n₁ cos − n₂ sin, y₂ =
    n₂ cos + n₁ sin. Backward the turn goes the other way, then as in `UnitNorm`.
    """

    @staticmethod
    def forward(ctx: Any, wide: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        """`weight` (Dh,) float32 multiplies the normed heads; `cos`, `sin` (B or 1, 1, T, Dh) are of `rotation`."""
        batch, length, _ = wide.shape
        size = weight.shape[0]
        heads = wide.float().view(batch, length, -1, size).transpose(1, 2)
        factor = torch.linalg.vector_norm(heads, dim=-1, keepdim=True).square_().div_(size).add_(eps).rsqrt_()
        unit = torch.mul(heads, factor, out=heads.new_empty(heads.shape))
        ctx.save_for_backward(unit, factor, weight, cos, sin)
        ctx.dtype = wide.dtype
        return _turned(unit * weight, cos, sin, 1).to(wide.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        """Gradients with respect to the projection's output and the weight."""
        unit, factor, weight, cos, sin = ctx.saved_tensors
        by_normed = _turned(grads[0].float(), cos, sin, -1)
        by_unit = by_normed * unit
        d_weight = by_unit.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        shared = torch.mv(by_unit.flatten(0, -2), weight).view(factor.shape).div_(-unit.shape[-1])
        by_unit = by_normed.mul_(weight).addcmul_(unit, shared)
        batch, heads, length, size = unit.shape
        made = unit.new_empty(batch, length, heads, size)
        torch.mul(by_unit, factor, out=made.transpose(1, 2))
        return made.view(batch, length, -1).to(ctx.dtype), d_weight, None, None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    """Heads (B, H, T, Dh) turned by their angles, or with `way` −1 turned back."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-way)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=way)
    return out
