"""8-bit linear layers for decoding on processors: weights and activations as integers with a scale per row.

Decoding reads every weight in each step, so half the bytes of bfloat16 are up to twice the speed. Each row of
activations is scaled by its own largest value before it is rounded, and the sums are exact integers: a row's
result does not depend on its neighbours in the batch, as it would with one scale for all.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from causerie.core import CauserieError
from causerie.infer.packed import SLAB

_PLAIN: Final[tuple[Any, ...]] = (None, 1.0, 0, torch.float32, "none", [], "")
"""No bias, output in float32, nothing fused behind the product."""


class Int8Linear(nn.Module):
    """`y = W x + b` with W in int8 (one scale per output) and x in 8 bits (one scale per token), by oneDNN.

    Args:
        weight: (N, K) of any float type.
        bias: (N,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        slabs = weight.detach().split(SLAB)
        self.out_features = len(weight)
        self._slabs = [_pack(slab.float()) for slab in slabs]
        self._bias = None if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) float32."""
        rows = x.reshape(-1, x.shape[-1]).float()
        peaks = rows.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12)
        # Unsigned, centred on 128: the signed form has no fast kernel (measured a thousand times slower).
        levels = (rows * peaks.reciprocal().mul_(127)).add_(128.5).to(torch.uint8)
        if len(self._slabs) == 1:
            out = _product(levels, self._slabs[0]).mul_(peaks)
        else:
            out = torch.empty(len(rows), self.out_features)
            for slab, place in zip(self._slabs, out.split(SLAB, dim=1), strict=True):
                torch.mul(_product(levels, slab), peaks, out=place)
        if self._bias is not None:
            out.add_(self._bias)
        return out.view(*x.shape[:-1], -1)


def _pack(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (N, K) float32 in oneDNN's order as int8, their scales (N,) and zero points (N,)."""
    scales = (weight.abs().amax(dim=1) / 127).clamp_min_(1e-12)
    rounded = (weight / scales[:, None]).round_().to(torch.int8)
    # the activations' part of the scale is their peak over 127
    return torch.ops.onednn.qlinear_prepack(rounded, None), scales / 127, torch.zeros(len(scales), dtype=torch.int32)


def _product(levels: Tensor, packed: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return cast(Tensor, torch.ops.onednn.qlinear_pointwise(levels, 1.0, 128, *packed, *_PLAIN))


def check_int8(device: torch.device) -> None:
    """Refuse where 8-bit products would be slow or missing.

    Raises:
        CauserieError: CAU-3108.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        raise _not_here("there are no 8-bit kernels for this device")
    if not torch.cpu._is_vnni_supported():
        raise _not_here("this processor has no VNNI instructions")


def _not_here(cause: str) -> CauserieError:
    return CauserieError("CAU-3108", cause, where="quantize", fix="leave quantize out")
