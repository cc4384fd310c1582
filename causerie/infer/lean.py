"""A loaded model made lean for decoding: fewer and larger operators, weights in 8 bits where asked for.

At batch 1 a small model's time is half operators' overhead. Projections that read the same input become one product
(query, key and value; gate and up), queries and keys are normed and rotated together, and with int8 everything
between the products is float32, so that nothing is converted. The modules are replaced in place and keep their
signatures: `Transformer.forward` and every family's order of norms stay what they are.
"""

from __future__ import annotations

import math
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.infer.adapters import Lanes
from causerie.infer.int8 import Int8Linear, check_int8
from causerie.infer.packed import PackedLinear, packs
from causerie.model import MLP, Attend, Attention, RMSNorm, Transformer, activate, rotate

Turn = tuple[Tensor, Tensor] | None
GELU: Final = math.sqrt(2 / math.pi)


class LeanLinear:
    """Linear layers with a common input as one product, plus the low-rank terms of the step's adapters.

    Args:
        names: full names of the layers, in the order of the outputs.
        layers: the layers.
        lanes: where each step says which rows belong to which adapter.
        int8: 8-bit weights.
    """

    def __init__(self, names: tuple[str, ...], layers: list[nn.Linear], lanes: Lanes, int8: bool) -> None:
        weights: list[Tensor] = [layer.weight for layer in layers]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        biases: list[Tensor] = [layer.bias for layer in layers]
        bias = None if layers[0].bias is None else torch.cat(biases)
        self.lanes = lanes
        self.key = lanes.register(names, [layer.out_features for layer in layers], layers[0].in_features)
        self.packed: Int8Linear | PackedLinear | None = None
        if int8 or packs(weight):
            self.packed = Int8Linear(weight, bias) if int8 else PackedLinear(weight, bias)
        bare = self.packed is None
        self.weight = weight.detach() if bare else None
        self.bias = bias.detach() if bare and bias is not None else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) → (..., sum of out)."""
        out = self.packed(x) if self.packed is not None else F.linear(x, cast(Tensor, self.weight), self.bias)
        if self.lanes.rows:
            self.lanes.add(self.key, x, out)
        return out


class LeanNorm:
    """The model's RMSNorm over the last dimension, in four passes (torch's own takes seven on processors).

    Args:
        weight: what is multiplied with in the end, offset added.
        eps: as in the model.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.shape[-1]
        # x / sqrt(mean square + eps) is x sqrt(size) / hypot(length, sqrt(size eps)). No parameters: slow to look up.
        self.weight = weight * math.sqrt(size)
        self.floor = torch.tensor(math.sqrt(size * eps), device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., size) → the same shape and type; computed in float32."""
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        return (wide / torch.hypot(length, self.floor)).mul_(self.weight).type_as(x)


def lean_norm(*norms: tuple[RMSNorm, int]) -> LeanNorm:
    """Norms of several heads as one: each with the number of heads that it is for; one alone is for the width."""
    weights = [norm.weight.detach().float() + norm.offset for norm, _ in norms]
    if len(norms) == 1:
        return LeanNorm(weights[0], norms[0][0].eps)
    wide = [weight.expand(count, -1) for weight, (_, count) in zip(weights, norms, strict=True)]
    return LeanNorm(torch.cat(wide), norms[0][0].eps)


class LeanAttention:
    """`model.parts.Attention` with one projection, one norm and one rotation for queries and keys together."""

    def __init__(self, attention: Attention, name: str, lanes: Lanes, int8: bool, cache_dtype: torch.dtype) -> None:
        parts = ("qkv_proj",) if attention.fused else ("q_proj", "k_proj", "v_proj")
        names = tuple(f"{name}.{part}" for part in parts)
        self.qkv_proj = LeanLinear(names, [getattr(attention, part) for part in parts], lanes, int8)
        self.o_proj = LeanLinear((f"{name}.o_proj",), [attention.o_proj], lanes, int8)
        self.layer, self.head_dim, self.cache_dtype = attention.layer, attention.head_dim, cache_dtype
        self.n_head = attention.o_proj.in_features // attention.head_dim
        self.n_kv_head = (self.qkv_proj_size(attention) // attention.head_dim - self.n_head) // 2
        self.norm: LeanNorm | None = None
        if isinstance(attention.q_norm, RMSNorm):
            self.norm = lean_norm((attention.q_norm, self.n_head), (cast(RMSNorm, attention.k_norm), self.n_kv_head))

    @staticmethod
    def qkv_proj_size(attention: Attention) -> int:
        """Outputs of the three projections together."""
        return sum(attention.sizes)

    def __call__(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:
        """(1, N, D) → (1, N, D)."""
        heads = self.qkv_proj(x).view(*x.shape[:-1], -1, self.head_dim)
        n_turned = self.n_head + self.n_kv_head
        qk, v = heads[:, :, :n_turned], heads[:, :, n_turned:].transpose(1, 2)
        if self.norm is not None:
            qk = self.norm(qk)
        qk = qk.transpose(1, 2)
        if turn is not None:
            qk = rotate(qk, *turn)
        qk = qk.to(self.cache_dtype)
        mixed = attend(self.layer, qk[:, : self.n_head], qk[:, self.n_head :], v.to(self.cache_dtype))
        return self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:-1], -1).to(x.dtype))


class LeanMLP:
    """`model.parts.MLP` with one product for gate and up."""

    def __init__(self, mlp: MLP, name: str, lanes: Lanes, int8: bool) -> None:
        parts = ("gate_up_proj",) if mlp.fused else ("gate_proj", "up_proj") if mlp.gated else ("up_proj",)
        names = tuple(f"{name}.{part}" for part in parts)
        self.up_proj = LeanLinear(names, [getattr(mlp, part) for part in parts], lanes, int8)
        self.down_proj = LeanLinear((f"{name}.down_proj",), [mlp.down_proj], lanes, int8)
        self.gated, self.activation = mlp.gated, mlp.activation
        self.slope = torch.tensor(2 * GELU)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        wide = self.up_proj(x)
        if not self.gated:
            return self.down_proj(self._activate(wide))
        gate, up = wide.chunk(2, dim=-1)
        return self.down_proj(self._activate(gate).mul_(up))

    def _activate(self, x: Tensor) -> Tensor:
        """`activate`; GELU's tanh form by the sigmoid that it equals: for many numbers in a third of the time."""
        if self.activation != "gelu_tanh" or x.device.type != "cpu":
            return activate(x, self.activation)
        wide = x.float()  # 1 + tanh(u) = 2 sigmoid(2 u)
        inner = torch.addcmul(self.slope, wide, wide, value=2 * 0.044715 * GELU).mul_(wide)
        return inner.sigmoid_().mul_(wide).type_as(x)


class WideEmbedding:
    """An embedding whose rows come out in float32, whatever they are kept in."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, T) → (B, T, D) float32."""
        return F.embedding(ids, self.weight).float()


def make_lean(model: Transformer, lanes: Lanes, *, int8: bool) -> None:
    """Replace a model's layers in place by their lean forms; the model can only be run afterwards, not trained.

    Args:
        model: as loaded, adapters merged.
        lanes: told the names of all linear layers.
        int8: 8-bit linear layers, float32 between them.

    Raises:
        CauserieError: CAU-3108 where 8-bit products would be slow.
    """
    weight = model.embed_tokens.weight
    if int8:
        check_int8(weight.device)
    for name, module in list(model.named_modules()):
        if isinstance(module, Attention):
            _put(model, name, LeanAttention(module, name, lanes, int8, weight.dtype))
        elif isinstance(module, MLP):
            _put(model, name, LeanMLP(module, name, lanes, int8))
        elif isinstance(module, RMSNorm) and not name.endswith(("q_norm", "k_norm")):
            _put(model, name, lean_norm((module, 1)))
        elif isinstance(module, nn.LayerNorm) and int8:
            module.float()
    if int8 and weight.dtype != torch.float32:
        for name in ("embed_tokens", "embed_positions"):
            table = getattr(model, name, None)
            if table is not None:
                _put(model, name, WideEmbedding(table.weight))


def _put(model: Transformer, name: str, layer: object) -> None:
    parent, _, last = name.rpartition(".")
    owner = model.get_submodule(parent) if parent else model
    delattr(owner, last)  # a module's name takes nothing else
    setattr(owner, last, layer)
