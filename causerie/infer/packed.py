"""Linear layers in bfloat16 for decoding on processors, their weights kept in the order that oneDNN reads.

For few rows torch's plain product reads a matrix at a quarter of what memory gives; in this order it is read at
nearly all of it (65,536 x 640, one row, one thread: 7.4 ms and 2.2). Sums are float32 and rounded once, in both;
a row's result does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor

SLAB: Final = 32_768
"""Outputs computed at once: a vocabulary's worth of them does not fit the processor's cache."""
WIDTH: Final = 1024
"""Inputs added up at once: beyond, oneDNN's order of adding depends on the number of rows, and a row's result would."""
_PLAIN: Final[tuple[Any, ...]] = ("none", [], "")
"""Nothing fused behind the product."""


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
        """(..., K) → (..., N), bfloat16 or float32."""
        if len(self._slabs) == 1:
            out = _product(x, self._slabs[0], self._biases[0])
            return out.float() if self.wide else out
        rows = x.reshape(-1, x.shape[-1])
        whole = torch.empty(len(rows), self.out_features, dtype=torch.float32 if self.wide else x.dtype)
        for slab, bias, place in zip(self._slabs, self._biases, whole.split(SLAB, dim=1), strict=True):
            place.copy_(_product(rows, slab, bias))
        return whole.view(*x.shape[:-1], -1)


def packs(weight: Tensor) -> bool:
    """Whether a layer of these weights gains by being packed: bfloat16 on a processor that multiplies it."""
    known = weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return known and bool(torch.cpu._is_avx512_bf16_supported())


def _pack(weight: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None))


def _product(x: Tensor, slab: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """One slab's outputs: the product of the first inputs, and the others' added to it."""
    ops = torch.ops.mkldnn
    first, *others = [x] if len(slab) == 1 else [part.contiguous() for part in x.split(WIDTH, dim=-1)]
    out = ops._linear_pointwise(first, slab[0], bias, *_PLAIN)
    for part, weight in zip(others, slab[1:], strict=True):
        out = ops._linear_pointwise.binary(part, out, weight, None, "add")
    return cast(Tensor, out)
