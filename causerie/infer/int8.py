"""8-bit linear layers for decoding on processors: weights and activations as integers with a scale per row.

Decoding reads every weight in each step, so half the bytes of bfloat16 are up to twice the speed. Each row of
activations is scaled by its own largest value before it is rounded, and the sums are exact integers: a row's
result does not depend on its neighbours in the batch, as it would with one scale for all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from causerie.core import CauserieError
from causerie.model import Transformer


class Int8Linear(nn.Module):
    """`y = W x + b` with W in int8 (one scale per output) and x in 8 bits (one scale per token), by oneDNN.

    Args:
        weight: (N, K) of any float type.
        bias: (N,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        wide = weight.detach().float()
        scales = (wide.abs().amax(dim=1) / 127).clamp_min_(1e-12)
        rounded = (wide / scales[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._bias = None if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) → (..., N) in x's type."""
        rows = x.reshape(-1, x.shape[-1]).float()
        peaks = rows.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12).div_(127)
        # Unsigned, centred on 128: the signed form has no fast kernel (measured a thousand times slower).
        levels = (rows / peaks).add_(128.5).to(torch.uint8)
        weights = (self._packed, self._scales, self._zeros)
        plain: tuple[Any, ...] = (
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )  # no bias, output in float32, nothing fused behind
        product = torch.ops.onednn.qlinear_pointwise(levels, 1.0, 128, *weights, *plain)
        out = product.mul_(peaks)
        if self._bias is not None:
            out.add_(self._bias)
        return out.view(*x.shape[:-1], -1).to(x.dtype)


def quantize_model(model: Transformer, *, layers: bool) -> Int8Linear:
    """The output projection of a model in 8 bits; with `layers`, all its linear layers are replaced in place too.

    Raises:
        CauserieError: CAU-3108 where the processor or this build of torch has no fast 8-bit products.
    """
    if model.embed_tokens.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        raise _not_here("there are no 8-bit kernels for this device")
    if not torch.cpu._is_vnni_supported():
        raise _not_here("this processor has no VNNI instructions")
    head = Int8Linear(model.head_weight)
    for module in list(model.layers.modules()) if layers else []:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight, child.bias))
    if not model.shape.tie_embeddings:
        model.lm_head = None  # the engine asks the returned projection instead
    return head


def _not_here(cause: str) -> CauserieError:
    return CauserieError("CAU-3108", cause, where="quantize", fix="leave quantize out")
