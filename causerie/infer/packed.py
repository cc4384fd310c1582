"""Linear layers of the lean model; those in bfloat16 on processors keep their weights in the order that oneDNN reads.

For few rows torch's plain product reads a matrix at a quarter of what memory gives; in this order it is read at
nearly all of it (65,536 x 640, one row, one thread: 7.4 ms and 2.2). Sums are float32 and rounded once, in both;
a row's result does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.infer.adapters import Lanes
from causerie.infer.int8 import Int8Linear

SLAB: Final = 32_768
"""Outputs computed at once: a vocabulary's worth of them does not fit the processor's cache."""
WIDTH: Final = 1024
"""Inputs added up at once: beyond, oneDNN's order of adding depends on the number of rows, and a row's result would."""
_PLAIN: Final[tuple[Any, ...]] = ("none", [], "")
"""Nothing fused behind the product."""
_BEHIND: Final[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {"silu": ("swish", [], ""), "gelu": ("gelu", [], "none"), "gelu_tanh": ("gelu", [], "tanh")}
)
"""Activations that oneDNN computes behind a product, in float32."""


class LeanLinear:
    """Linear layers with a common input as one product, plus the low-rank terms of the step's adapters.

    Args:
        names: full names of the layers, in the order of the outputs.
        layers: the layers.
        lanes: where each step says which rows belong to which adapter.
        int8: 8-bit weights.
        order: which of the joined outputs comes where; None: as they are.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        layers: list[nn.Linear],
        lanes: Lanes,
        int8: bool,
        order: Tensor | None = None,
    ) -> None:
        weight, bias = joined(layers)
        if order is not None:
            weight, bias = weight[order], None if bias is None else bias[order]
        self.lanes = lanes
        self.key = lanes.register(names, [layer.out_features for layer in layers], layers[0].in_features, order)
        self.product = Int8Linear(weight, bias) if int8 else linear(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """(1, N, in) of any type → (1, N, sum of out), in float32 where it is of 8 bits, else in the weights' type."""
        out = self.product(x)
        if self.lanes.rows:
            self.lanes.add(self.key, x, out)
        return out


def joined(layers: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of layers with a common input, one above the other."""
    weights: list[Tensor] = [layer.weight.detach() for layer in layers]
    biases: list[Tensor] = [layer.bias.detach() for layer in layers if layer.bias is not None]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    return weight, torch.cat(biases) if biases else None


def linear(weight: Tensor, bias: Tensor | None, *, wide: bool = False) -> PackedLinear | PlainLinear:
    """The product with weights (N, K) as they are, packed where that is quicker; `wide`: given in float32."""
    return PackedLinear(weight, bias, wide=wide) if packs(weight) else PlainLinear(weight, bias, wide=wide)


class PlainLinear:
    """`y = W x + b` by torch, in the weights' type; arguments as of `PackedLinear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, wide: bool = False) -> None:
        self.weight, self.wide = weight.detach(), wide
        self.bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) of any type → (..., N)."""
        out = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        return out.float() if self.wide else out


class PackedLinear:
    """`y = W x + b` in bfloat16.

    Args:
        weight: (N, K) bfloat16.
        bias: (N,) or None.
        wide: whether the result is given in float32, as logits are.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, wide: bool = False) -> None:
        weight, self.out_features, self.wide = weight.detach(), len(weight), wide
        self._slabs = [[_pack(part) for part in slab.split(WIDTH, dim=1)] for slab in weight.split(SLAB)]
        biases: Sequence[Tensor | None] = [None] * len(self._slabs) if bias is None else bias.detach().split(SLAB)
        self._biases = list(biases)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) of any type → (..., N), bfloat16 or float32."""
        x = x.bfloat16()
        if len(self._slabs) == 1:
            out = _product(x, self._slabs[0], self._biases[0])
            return out.float() if self.wide else out
        rows = x.reshape(-1, x.shape[-1])
        whole = torch.empty(len(rows), self.out_features, dtype=torch.float32 if self.wide else x.dtype)
        for slab, bias, place in zip(self._slabs, self._biases, whole.split(SLAB, dim=1), strict=True):
            place.copy_(_product(rows, slab, bias))
        return whole.view(*x.shape[:-1], -1)

    def activated(self, x: Tensor, activation: str) -> Tensor:
        """activation(W x + b), rounded once; for layers that `fuses` allows."""
        ((weight,),), (bias,) = self._slabs, self._biases
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, *_BEHIND[activation]))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(W x + b) · other, rounded once; for layers that `fuses` allows."""
        ((weight,),), (bias,) = self._slabs, self._biases
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, bias, "mul"))


def packs(weight: Tensor) -> bool:
    """Whether a layer of these weights gains by being packed: bfloat16 on a processor that multiplies it."""
    known = weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return known and bool(torch.cpu._is_avx512_bf16_supported())


def fuses(weight: Tensor) -> bool:
    """Whether what follows a layer of these weights (N, K) can be computed behind its one product."""
    return packs(weight) and weight.shape[0] <= SLAB and weight.shape[1] <= WIDTH


def _pack(weight: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None))


def _product(x: Tensor, slab: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """One slab's outputs: the product of the first inputs, and the others' added to it."""
    ops = torch.ops.mkldnn
    first, *others = (x,) if len(slab) == 1 else x.split(WIDTH, dim=-1)
    out = ops._linear_pointwise(first, slab[0], bias, *_PLAIN)
    for part, weight in zip(others, slab[1:], strict=True):
        out = ops._linear_pointwise.binary(part, out, weight, None, "add")
    return cast(Tensor, out)
