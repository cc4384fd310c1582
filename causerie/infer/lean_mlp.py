"""The MLP of a lean model: gate and up together, the activation behind the product where oneDNN can put it there."""

from __future__ import annotations

import math
from typing import Final, cast

import torch
from torch import Tensor, nn

from causerie.infer.adapters import Lanes
from causerie.infer.packed import LeanLinear, PackedLinear, fuses, joined
from causerie.model import MLP, activate

GELU: Final = math.sqrt(2 / math.pi)


def lean_mlp(module: nn.Module | Tensor, name: str, lanes: Lanes, int8: bool) -> LeanMLP | FusedMLP:
    """The lean form of a layer's MLP."""
    mlp = cast(MLP, module)
    fused = not int8 and fuses(getattr(mlp, _parts(mlp)[0]).weight)
    return FusedMLP(mlp, name, lanes) if fused else LeanMLP(mlp, name, lanes, int8)


def _parts(mlp: MLP) -> tuple[str, ...]:
    return ("gate_up_proj",) if mlp.fused else ("gate_proj", "up_proj") if mlp.gated else ("up_proj",)


class LeanMLP:
    """`model.parts.MLP` with one product for gate and up."""

    def __init__(self, mlp: MLP, name: str, lanes: Lanes, int8: bool) -> None:
        parts = _parts(mlp)
        names = tuple(f"{name}.{part}" for part in parts)
        self.up_proj = LeanLinear(names, [getattr(mlp, part) for part in parts], lanes, int8)
        self.down_proj = LeanLinear((f"{name}.down_proj",), [mlp.down_proj], lanes, int8)
        self.activation = Activation(mlp)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        return self.down_proj(self.activation(self.up_proj(x)))


class FusedMLP:
    """`LeanMLP` in bfloat16: activation and the gate's product are within oneDNN's products, before their rounding.

    Rows of adapters, whose terms come before the activation, are computed once more in parts.
    """

    def __init__(self, mlp: MLP, name: str, lanes: Lanes) -> None:
        parts = _parts(mlp)
        layers = [getattr(mlp, part) for part in parts]
        weight, bias = joined(layers)
        self.key = lanes.register(
            tuple(f"{name}.{part}" for part in parts), [layer.out_features for layer in layers], layers[0].in_features
        )
        self.lanes, self.activation = lanes, Activation(mlp)
        biases = (None, None) if bias is None else bias.chunk(2 if mlp.gated else 1)
        self.products = [PackedLinear(*both) for both in zip(weight.chunk(2 if mlp.gated else 1), biases, strict=False)]
        self.down_proj = LeanLinear((f"{name}.down_proj",), [mlp.down_proj], lanes, int8=False)

    def __call__(self, x: Tensor) -> Tensor:
        """(1, N, D) → (1, N, D)."""
        x = x.bfloat16()
        wide = self.products[0].activated(x, self.activation.name)
        if len(self.products) == 2:
            wide = self.products[1].times(x, wide)
        for adapter, first, last in self.lanes.rows:
            if self.key in adapter.terms:
                some = x[:, first:last]
                parts = torch.cat([product(some) for product in self.products], dim=-1)
                adapter.add(self.key, some, parts)
                wide[:, first:last] = self.activation(parts)
        return self.down_proj(wide)


class Activation:
    """From what gate and up projection give, side by side, to what the down projection takes."""

    def __init__(self, mlp: MLP) -> None:
        self.name, self.gated = mlp.activation, mlp.gated
        self._slope = torch.tensor(2 * GELU)

    def __call__(self, wide: Tensor) -> Tensor:
        """(..., 2 F), or (..., F) without a gate → (..., F) of the same type."""
        if not self.gated:
            return self._activate(wide)
        gate, up = wide.chunk(2, dim=-1)
        return self._activate(gate).mul_(up)

    def _activate(self, x: Tensor) -> Tensor:
        """`activate`; GELU's tanh form by the sigmoid that it equals: for many numbers in a third of the time."""
        if self.name != "gelu_tanh" or x.device.type != "cpu":
            return activate(x, self.name)
        wide = x.float()  # 1 + tanh(u) = 2 sigmoid(2 u)
        inner = torch.addcmul(self._slope, wide, wide, value=2 * 0.044715 * GELU).mul_(wide)
        return inner.sigmoid_().mul_(wide).type_as(x)
