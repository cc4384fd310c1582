"""A loaded model made lean for inference: fewer and larger operators, weights packed, in 8 bits where asked for.

A small model's time is half operators and memory between its products. Projections that read the same input become one
product (query, key and value; gate and up), queries and keys are normed and turned together, the residual stream and
all that lies between two products is float32, so that little is converted, and of the last layer only those rows are
computed that somebody asks for. Numbers are the model's own up to rounding, in every family and order of norms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.infer.adapters import Lanes
from causerie.infer.int8 import check_int8
from causerie.infer.lean_mlp import lean_mlp
from causerie.infer.packed import LeanLinear
from causerie.model import Attend, Attention, RMSNorm, Transformer, rotation

Turn = Tensor | None
"""A layer's rotation: (1, N, 1, dim/2) complex, of length 1; None where positions are learned."""
Layer = Callable[[Tensor], Tensor]


class LeanNorm:
    """The model's RMSNorm over the last dimension, in three passes (torch's own takes seven on processors).

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
        """(..., size) of any type → the same shape in float32."""
        wide = x.float()
        return (wide / self._length(wide)).mul_(self.weight)

    def of_own(self, x: Tensor) -> Tensor:
        """The same of a tensor that nobody needs any more: in its memory, if it is float32."""
        wide = x.float()
        return wide.div_(self._length(wide)).mul_(self.weight)

    def onto(self, x: Tensor, y: Tensor) -> Tensor:
        """x + norm(y) in x's memory, in float32; y is of any type, and nobody needs it any more."""
        wide = y.float()
        return x.addcmul_(wide.div_(self._length(wide)), self.weight)

    def _length(self, wide: Tensor) -> Tensor:
        return torch.hypot(torch.linalg.vector_norm(wide, dim=-1, keepdim=True), self.floor)


class LeanLayerNorm:
    """The model's LayerNorm, in float32."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.size, self.eps = norm.normalized_shape, norm.eps
        self.weight = norm.weight.detach().float()
        self.bias = None if norm.bias is None else norm.bias.detach().float()

    def __call__(self, x: Tensor) -> Tensor:
        """(..., size) of any type → the same shape in float32."""
        return F.layer_norm(x.float(), self.size, self.weight, self.bias, self.eps)

    def onto(self, x: Tensor, y: Tensor) -> Tensor:
        """x + norm(y) in x's memory."""
        return x.add_(self(y))


def lean_norm(*norms: tuple[RMSNorm, int]) -> LeanNorm:
    """Norms of several heads as one: each with the number of heads that it is for; one alone is for the width."""
    weights = [norm.weight.detach().float() + norm.offset for norm, _ in norms]
    if len(norms) == 1:
        return LeanNorm(weights[0], norms[0][0].eps)
    wide = [weight.expand(count, -1) for weight, (_, count) in zip(weights, norms, strict=True)]
    return LeanNorm(torch.cat(wide), norms[0][0].eps)


def lean_norm_of(module: nn.Module) -> LeanNorm | LeanLayerNorm:
    """The lean form of a block's norm."""
    return lean_norm((module, 1)) if isinstance(module, RMSNorm) else LeanLayerNorm(cast(nn.LayerNorm, module))


def turn_heads(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate heads (1, N, H, head_dim) float32 in place: pairs of numbers side by side, times complex numbers."""
    count = turn.shape[-1]
    turned = x if x.shape[-1] == 2 * count else x[..., : 2 * count]
    torch.view_as_complex(turned.view(1, x.shape[1], -1, count, 2)).mul_(turn)
    return x


def side_by_side(head_dim: int, turned: int) -> Tensor:
    """A head's dimensions in the order in which `turn_heads` wants them, from that of `model.rotate`: the pairs (i, i +
    turned/2) side by side, then those beyond `turned`. Queries and keys in the same order have the same products.
    """
    pairs = torch.arange(turned).view(2, -1).T.flatten()
    return torch.cat((pairs, torch.arange(turned, head_dim)))


class LeanAttention:
    """`model.parts.Attention` with one projection, one norm and one rotation for queries and keys together.

    Args:
        attention: the module.
        name: its full name.
        turned: how many dimensions of a head are rotated.
        lanes: told the names of its layers.
        int8: 8-bit weights.
        cache_dtype: type of keys and values.
    """

    def __init__(
        self, attention: Attention, name: str, turned: int, lanes: Lanes, int8: bool, cache_dtype: torch.dtype
    ) -> None:
        parts = ("qkv_proj",) if attention.fused else ("q_proj", "k_proj", "v_proj")
        names = tuple(f"{name}.{part}" for part in parts)
        self.layer, self.head_dim, self.cache_dtype = attention.layer, attention.head_dim, cache_dtype
        self.n_head, n_kv_head, _ = (size // self.head_dim for size in attention.sizes)
        self.n_turned = self.n_head + n_kv_head
        within = side_by_side(self.head_dim, turned)
        order = torch.arange(sum(attention.sizes)).view(-1, self.head_dim)
        order[: self.n_turned] = order[: self.n_turned, within]
        layers = [getattr(attention, part) for part in parts]
        self.qkv_proj = LeanLinear(names, layers, lanes, int8, order.flatten())
        self.o_proj = LeanLinear((f"{name}.o_proj",), [attention.o_proj], lanes, int8)
        self.norm: LeanNorm | None = None
        if isinstance(attention.q_norm, RMSNorm):
            self.norm = lean_norm((attention.q_norm, self.n_head), (cast(RMSNorm, attention.k_norm), n_kv_head))
            self.norm.weight = self.norm.weight[:, within]

    def __call__(self, x: Tensor, turn: Turn, attend: Attend, rows: Tensor | None = None) -> Tensor:
        """(1, N, D) → (1, N, D), or (1, n, D) of the n `rows` that are wanted."""
        heads = self.qkv_proj(x).view(1, x.shape[1], -1, self.head_dim)
        qk, v = heads[:, :, : self.n_turned], heads[:, :, self.n_turned :].transpose(1, 2)
        if self.norm is not None:
            qk = self.norm.of_own(qk)
        if turn is not None:
            qk = turn_heads(qk.float(), turn)
        qk = qk.to(self.cache_dtype).transpose(1, 2)
        mixed = attend(self.layer, qk[:, : self.n_head], qk[:, self.n_head :], v.to(self.cache_dtype)).transpose(1, 2)
        if rows is not None:
            mixed = mixed[:, rows]
        return self.o_proj(mixed.reshape(1, mixed.shape[1], -1))


class LeanBlock:
    """`model.parts.Block` of a decoder.

    Args:
        block: the layer.
        name: its full name.
        turned: how many dimensions of a head are rotated.
        lanes: told the names of its linear layers; says which rows the last layer is to compute.
        int8: 8-bit linear layers.
        cache_dtype: type of keys and values.
        last: whether no layer follows.
    """

    def __init__(
        self,
        block: nn.Module,
        name: str,
        turned: int,
        lanes: Lanes,
        int8: bool,
        cache_dtype: torch.dtype,
        *,
        last: bool,
    ) -> None:
        self.lanes, self.last = lanes, last
        attention = cast(Attention, block.self_attn)
        self.attention = LeanAttention(attention, f"{name}.self_attn", turned, lanes, int8, cache_dtype)
        self.mlp = lean_mlp(block.mlp, f"{name}.mlp", lanes, int8)
        self.before = lean_norm_of(cast(nn.Module, block.input_layernorm))
        self.parallel, self.sandwich = block.place == "parallel", block.place == "sandwich"
        if not self.parallel:
            self.between = lean_norm_of(cast(nn.Module, block.post_attention_layernorm))
        if self.sandwich:
            self.before_mlp = lean_norm_of(cast(nn.Module, block.pre_feedforward_layernorm))
            self.after_mlp = lean_norm_of(cast(nn.Module, block.post_feedforward_layernorm))

    def __call__(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:
        """The residual stream (1, N, D) float32, added to in place; in the last layer (1, n, D) of the wanted rows."""
        rows = self.lanes.wanted if self.last else None
        normed = self.before(x)
        mixed = self.attention(normed, turn, attend, rows)
        if rows is not None:
            x = x[:, rows]
        if self.parallel:
            return x.add_(mixed).add_(self.mlp(normed if rows is None else normed[:, rows]))
        if self.sandwich:
            self.between.onto(x, mixed)
            return self.after_mlp.onto(x, self.mlp(self.before_mlp(x)))
        x.add_(mixed)
        return x.add_(self.mlp(self.between(x)))


class LeanModel:
    """A decoder's layers in their lean forms, as the engine runs it: without its output projection.

    Args:
        model: as loaded, adapters merged; its layers are taken apart one by one, so it cannot be used afterwards.
        lanes: told the names of all linear layers, and by each step which rows are wanted.
        int8: 8-bit linear layers.

    Raises:
        CauserieError: CAU-3108 where 8-bit products would be slow.
    """

    def __init__(self, model: Transformer, lanes: Lanes, *, int8: bool) -> None:
        self.table = model.embed_tokens.weight.detach()
        if int8:
            check_int8(self.table.device)
        self.shape, self.scaled = model.shape, model.shape.row.scale_embedding
        learned = model.embed_positions
        self.positions = None if learned is None else learned.weight.detach()
        row = self.shape.row
        self.turned = (self.shape.rotary_dim or self.shape.head_dim) if row.rotary else 0
        layers: list[nn.Module | None] = list(model.layers)
        model.layers = nn.ModuleList()
        self.blocks = []
        for index, block in enumerate(layers):
            assert block is not None
            last, name = index + 1 == len(layers), f"layers.{index}"
            self.blocks.append(LeanBlock(block, name, self.turned, lanes, int8, self.table.dtype, last=last))
            layers[index] = None  # its weights are held once
        self.norm: Layer = lean_norm_of(model.norm) if row.final_norm else nn.Identity()
        self._keys = [(self.shape.theta(layer), self.shape.scaling(layer)) for layer in range(self.shape.n_layer)]

    def __call__(self, ids: Tensor, *, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states after the final norm, (1, N) → (1, N or wanted rows, D) float32."""
        x = F.embedding(ids, self.table).float()
        if self.scaled:
            x *= self.shape.embed_scale
        if self.positions is not None:
            x += F.embedding(positions, self.positions)
        turns = self._turns(positions)
        for key, block in zip(self._keys, self.blocks, strict=True):
            x = block(x, turns.get(key), attend)
        return self.norm(x)

    def _turns(self, positions: Tensor) -> dict[object, Tensor]:
        """What `turn_heads` takes, by the layers' bases and stretchings; empty where positions are learned."""
        turns: dict[object, Tensor] = {}
        for key in dict.fromkeys(self._keys) if self.turned else ():
            cos, sin = (part[..., : self.turned // 2] for part in rotation(positions, self.turned, *key))
            turns[key] = torch.complex(cos, sin).transpose(1, 2)
        return turns
