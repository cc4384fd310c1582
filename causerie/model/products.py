"""Linear layers whose float32 products run in oneDNN where torch's own choice, MKL, is slow.

On processors that Intel did not make MKL keeps to AVX2: 115 GFLOP/s on a core of Zen 5, of which oneDNN, by AVX-512,
gets 230 to 250 (`docs/log.md`, decision 0034). torch asks oneDNN for narrow dtypes only, so training in float32 on such
a processor asks for it here, by the operator that torch's compiler uses. The arithmetic is float32 either way.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.compiler.assume_constant_result
def onednn_is_faster() -> bool:
    """Whether float32 products are: by make of processor, never by a clock, since the choice changes the last bits.

    CAUSERIE_PRODUCTS=plain leaves torch its choice.
    """
    return _by_processor()


@functools.cache
def _by_processor() -> bool:
    if os.environ.get("CAUSERIE_PRODUCTS") == "plain":
        return False
    try:
        processor = torch.cpu.get_capabilities()
        known = torch.ops.mkldnn._linear_pointwise.default is not None
    except (AttributeError, RuntimeError):  # torch before 2.12, or without oneDNN
        return False
    amd = str(processor.get("cpu_name", "")).startswith("AMD")
    return known and amd and bool(processor.get("avx512_f")) and torch.backends.mkl.is_available()


def wants_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `Product` should be used: in training, on such a processor, in float32, with whole weights."""
    if not torch.is_grad_enabled() or x.device.type != "cpu" or type(weight) is not nn.Parameter:
        return False
    plain = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and (x.requires_grad or weight.requires_grad) and onednn_is_faster()


def fastest_product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a · b of two matrices, without a gradient, by whatever training would use for them; in `out` if that pays."""
    return times(a, b.T) if _elsewhere(a) else torch.mm(a, b, out=out)


def transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ · b as `fastest_product`: (N, O), (N, I) → (O, I)."""
    return _by_weight(a, b) if _elsewhere(a) else torch.mm(a.T, b)


def _elsewhere(a: Tensor) -> bool:
    return a.dtype == torch.float32 and not a.is_cuda and onednn_is_faster()


def times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias by oneDNN: (N, I), (O, I), (O,) → (N, O) float32, any strides; no gradient."""
    if torch.compiler.is_compiling():
        kept: Tensor = _kept_times(x, weight, bias)
        return kept
    return _multiplied(x, weight, bias)


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return made


@torch.library.custom_op("causerie::times", mutates_args=())
def _kept_times(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`times` as one operator: seen through, torch's compiler fails to lower it (2.13: it wants packed constants)."""
    return _multiplied(x, weight, bias)


@_kept_times.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


class Product(torch.autograd.Function):
    """x · weightᵀ + bias, (..., I) → (..., O), by `times`, and so are its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See the class."""
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        ctx.shape = x.shape
        return times(flat, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients with respect to x, weight and bias, where wanted."""
        flat, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        by_out = grads[0].reshape(-1, weight.shape[0])
        by_x = times(by_out, weight.T).view(ctx.shape) if need_x else None
        by_weight = _by_weight(by_out, flat) if need_weight else None
        return by_x, by_weight, by_out.sum(0) if need_bias else None


class JointProduct(torch.autograd.Function):
    """Products of one input with several weights, side by side: (..., I) → (..., O₁ + O₂ + ...), as one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        """See the class."""
        flat, joint = x.reshape(-1, x.shape[-1]), torch.cat(weights)
        ctx.save_for_backward(flat, *weights)  # joined again for the gradient: no second copy of them is kept
        ctx.shape, ctx.sizes = x.shape, [len(weight) for weight in weights]
        return times(flat, joint).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to x and the weights."""
        flat, *weights = ctx.saved_tensors
        joint = torch.cat(weights)
        by_out = grads[0].reshape(-1, joint.shape[0])
        by_x = times(by_out, joint.T).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return by_x, *_by_weight(by_out, flat).split(ctx.sizes)


def _by_weight(by_out: Tensor, flat: Tensor) -> Tensor:
    """by_outᵀ · flat: (N, O), (N, I) → (O, I). oneDNN wants its first operand contiguous: the smaller one is turned."""
    (count, outputs), inputs = by_out.shape, flat.shape[1]
    if outputs * count <= inputs * (count + outputs):
        return times(by_out.T, flat.T)
    return times(flat.T, by_out.T).T.contiguous()


class Linear(nn.Linear):
    """`nn.Linear`, in training by oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O)."""
        if wants_onednn(x, self.weight):
            made: Tensor = Product.apply(x, self.weight, self.bias)
            return made
        return F.linear(x, self.weight, self.bias)


def joint_product(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """What each of the layers makes of x; in training on a CPU as one product where that is faster."""
    weights: list[Tensor] = [la.weight for la in layers if type(la) is Linear and la.bias is None]  # type: ignore[misc]
    if len(weights) == len(layers) and x.device.type == "cpu" and torch.is_grad_enabled():
        made: Tensor | None = None
        if all(wants_onednn(x, weight) for weight in weights):
            made = JointProduct.apply(x, *weights)
        elif torch.compiler.is_compiling() and all(type(weight) is nn.Parameter for weight in weights):
            made = F.linear(x, torch.cat(weights))
        if made is not None:
            return made.split([len(weight) for weight in weights], dim=-1)
    return tuple(layer(x) for layer in layers)
