"""8-bit linear layers for decoding on processors: weights and activations as integers with a scale per row.

Decoding reads every weight in each step, so half the bytes of bfloat16 are up to twice the speed. Each row of
activations is scaled by its own largest value before it is rounded, and the sums are exact integers: a row's
result does not depend on its neighbours in the batch, as it would with one scale for all.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from causerie.core import CauserieError

_PLAIN: Final[tuple[Any, ...]] = (None, 1.0, 0, torch.float32, "none", [], "")
"""No bias, output in float32, nothing fused behind the product."""
PART: Final = 32_768
"""Outputs whose weights are rounded at once, in float32."""
SMALL: Final = 4_000_000
"""Weights of a product, at most, that are kept in their plain order too: oneDNN takes 15 microseconds to begin, torch's
product of one row one. (1,536 x 640 by one thread: 42 and 28.)"""

MANY: Final = 8192
"""Numbers from which on two conversions, to 16 bits and to 8, take a third of the time of the one to unsigned bytes."""


class Int8Linear:
    """`y = W x + b` with W in int8 (one scale per output) and x in 8 bits (one scale per token).

    Args:
        weight: (N, K) of any float type.
        bias: (N,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        rounded = [_round(part.float()) for part in weight.detach().split(PART)]
        integers, scales = (torch.cat(some) for some in zip(*rounded, strict=True))
        self._product = torch.ops.onednn.qlinear_pointwise.default
        self._packed = torch.ops.onednn.qlinear_prepack(integers, None)
        self._scales, self._zeros = scales, torch.zeros(len(scales), dtype=torch.int32)
        self._plain = integers.T if weight.numel() <= SMALL else None
        self._bias = None if bias is None else bias.detach().float()
        self._centre = torch.full((1, weight.shape[1]), 128.5)
        self._middle = torch.tensor(128, dtype=torch.uint8)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) float32."""
        shape = x.shape
        rows = x.reshape(-1, shape[-1]).float()
        peaks = rows.abs().amax(dim=1, keepdim=True)
        # Unsigned, centred on 128: oneDNN has no fast kernel for the signed form (measured a thousand times slower).
        # A row of zeros gives any levels, and zeros in the end.
        levels = torch.addcdiv(self._centre, rows, peaks, value=127)
        levels = levels.short().byte() if levels.numel() > MANY else levels.byte()
        if self._plain is not None and rows.shape[0] == 1:  # exact sums, so the same result
            out = torch._int_mm(levels.sub_(self._middle).view(torch.int8), self._plain).mul(self._scales)
        else:
            out = self._product(levels, 1.0, 128, self._packed, self._scales, self._zeros, *_PLAIN)
        out.mul_(peaks)
        if self._bias is not None:
            out.add_(self._bias)
        return out if len(shape) == 2 else out.view(*shape[:-1], -1)


def _round(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (N, K) float32 as int8, and their scales (N,), the activations' part (their peak over 127) taken in."""
    scales = (weight.abs().amax(dim=1) / 127).clamp_min_(1e-12)
    return (weight / scales[:, None]).round_().to(torch.int8), scales / 127


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
