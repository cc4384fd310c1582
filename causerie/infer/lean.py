"""A loaded model made lean for decoding: fewer and larger operators, weights in 8 bits where asked for.

At batch 1 a small model's time is half operators' overhead. Projections that read the same input become one product
(query, key and value; gate and up), queries and keys are normed and rotated together, and with int8 everything
between the products is float32, so that nothing is converted. The modules are replaced in place and keep their
signatures: `Transformer.forward` and every family's order of norms stay what they are.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.infer.adapters import Lanes
from causerie.infer.int8 import Int8Linear, check_int8
from causerie.model import MLP, Attend, Attention, RMSNorm, Transformer, activate, rotate

Turn = tuple[Tensor, Tensor] | None


class LeanLinear(nn.Module):
    """Linear layers with a common input as one product, plus the low-rank terms of the step's adapters.

    Args:
        names: full names of the layers, in the order of the outputs.
        layers: the layers.
        lanes: where each step says which rows belong to which adapter.
        int8: 8-bit weights.
    """

    def __init__(self, names: tuple[str, ...], layers: list[nn.Linear], lanes: Lanes, int8: bool) -> None:
        super().__init__()
        weights: list[Tensor] = [layer.weight for layer in layers]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        biases: list[Tensor] = [layer.bias for layer in layers]
        bias = None if layers[0].bias is None else torch.cat(biases)
        self.lanes = lanes
        self.key = lanes.register(names, [layer.out_features for layer in layers], layers[0].in_features)
        self.packed = Int8Linear(weight, bias) if int8 else None
        self.weight = None if int8 else nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if int8 or bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., sum of out)."""
        out = self.packed(x) if self.packed is not None else F.linear(x, cast(Tensor, self.weight), self.bias)
        if self.lanes.rows:
            self.lanes.add(self.key, x, out)
        return cast(Tensor, out)


class LeanNorm(nn.Module):
    """The model's RMSNorm with its weight made ready; float32 in and out."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().float() + norm.offset, requires_grad=False)
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → the same shape, float32."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


class LeanAttention(nn.Module):
    """`model.parts.Attention` with one projection, one norm and one rotation for queries and keys together."""

    def __init__(self, attention: Attention, name: str, lanes: Lanes, int8: bool, cache_dtype: torch.dtype) -> None:
        super().__init__()
        parts = ("qkv_proj",) if attention.fused else ("q_proj", "k_proj", "v_proj")
        names = tuple(f"{name}.{part}" for part in parts)
        self.qkv_proj = LeanLinear(names, [getattr(attention, part) for part in parts], lanes, int8)
        self.o_proj = LeanLinear((f"{name}.o_proj",), [attention.o_proj], lanes, int8)
        self.layer, self.head_dim, self.cache_dtype = attention.layer, attention.head_dim, cache_dtype
        self.n_head = attention.o_proj.in_features // attention.head_dim
        self.n_kv_head = (self.qkv_proj_size(attention) // attention.head_dim - self.n_head) // 2
        self.norm_weight, self.eps = None, 0.0
        if isinstance(attention.q_norm, RMSNorm):
            q, k = attention.q_norm, cast(RMSNorm, attention.k_norm)
            weights = [norm.weight.detach().float() + norm.offset for norm in (q, k)]
            weight = torch.cat([weights[0].expand(self.n_head, -1), weights[1].expand(self.n_kv_head, -1)])
            self.norm_weight, self.eps = nn.Parameter(weight[:, None], requires_grad=False), q.eps

    @staticmethod
    def qkv_proj_size(attention: Attention) -> int:
        """Outputs of the three projections together."""
        return sum(attention.sizes)

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:
        """(1, N, D) → (1, N, D)."""
        heads = self.qkv_proj(x).view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)
        n_turned = self.n_head + self.n_kv_head
        qk, v = heads[:, :n_turned], heads[:, n_turned:]
        if self.norm_weight is not None:
            qk = (F.rms_norm(qk.float(), (self.head_dim,), None, self.eps) * self.norm_weight).type_as(x)
        if turn is not None:
            qk = rotate(qk, *turn)
        kind = self.cache_dtype
        mixed = attend(self.layer, qk[:, : self.n_head].to(kind), qk[:, self.n_head :].to(kind), v.to(kind))
        return self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:-1], -1).to(x.dtype))


class LeanMLP(nn.Module):
    """`model.parts.MLP` with one product for gate and up."""

    def __init__(self, mlp: MLP, name: str, lanes: Lanes, int8: bool) -> None:
        super().__init__()
        parts = ("gate_up_proj",) if mlp.fused else ("gate_proj", "up_proj") if mlp.gated else ("up_proj",)
        names = tuple(f"{name}.{part}" for part in parts)
        self.up_proj = LeanLinear(names, [getattr(mlp, part) for part in parts], lanes, int8)
        self.down_proj = LeanLinear((f"{name}.down_proj",), [mlp.down_proj], lanes, int8)
        self.gated, self.activation = mlp.gated, mlp.activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        wide = self.up_proj(x)
        if not self.gated:
            return self.down_proj(activate(wide, self.activation))
        gate, up = wide.chunk(2, dim=-1)
        return self.down_proj(activate(gate, self.activation).mul_(up))


class WideEmbedding(nn.Module):
    """An embedding whose rows come out in float32, whatever they are kept in."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
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
    wide = int8 or weight.dtype == torch.float32
    for name, module in list(model.named_modules()):
        if isinstance(module, Attention):
            _put(model, name, LeanAttention(module, name, lanes, int8, weight.dtype))
        elif isinstance(module, MLP):
            _put(model, name, LeanMLP(module, name, lanes, int8))
        elif isinstance(module, RMSNorm) and wide and not name.endswith(("q_norm", "k_norm")):
            _put(model, name, LeanNorm(module))
        elif isinstance(module, nn.LayerNorm) and int8:
            module.float()
    if int8 and weight.dtype != torch.float32:
        for name in ("embed_tokens", "embed_positions"):
            table = getattr(model, name, None)
            if table is not None:
                setattr(model, name, WideEmbedding(table.weight))


def _put(model: Transformer, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, last, module)
