"""The parts every family is built from: norm, rotation, attention, MLP, block.

Module and parameter names are Hugging Face's Llama names, so that for most families a state dict *is* the content of
`model.safetensors` (with `model.` before all but the output projection); `hf_names` has the older families' names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.model.attend import Attend
from causerie.model.families import Activation
from causerie.model.products import Linear, joint_product
from causerie.model.rms_norm import UnitNorm, wants_unit_norm
from causerie.model.shape import ModelShape, RopeScaling
from causerie.model.turned_heads import TurnedHeads, wants_turned_heads


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, times (offset + weight), in the input's dtype (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float, offset: float) -> None:
        super().__init__()
        self.eps = eps
        self.offset = offset
        self.weight = nn.Parameter(torch.full((size,), 1.0 - offset))

    @property
    def factor(self) -> Tensor:
        """What the normed input is multiplied with, (size,) float32 (1 + a small weight would be lost in bf16)."""
        wide = self.weight.float()
        return wide + self.offset if self.offset else wide

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → the same shape and dtype."""
        if wants_unit_norm(x):
            made: Tensor = UnitNorm.apply(x, self.factor, self.eps)
            return made
        wide = x.float()
        unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (unit * (self.weight.float() + self.offset)).type_as(x)


def make_norm(shape: ModelShape, size: int | None = None) -> nn.Module:
    """The family's norm over the width, or over `size`."""
    row, size = shape.row, size or shape.n_embd
    if row.norm == "rms":
        return RMSNorm(size, shape.norm_eps, row.norm_offset)
    return nn.LayerNorm(size, shape.norm_eps, bias=row.norm_bias)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """The MLP's activation, elementwise."""
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def rotation(positions: Tensor, dim: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding (arXiv:2104.09864).

    Args:
        positions: (B, T) or (1, T) integers.
        dim: rotated size of a head; pairs are (i, i + dim/2).
        theta: base of the frequencies.
        scaling: stretching of the frequencies.

    Returns:
        cos, sin: (B or 1, 1, T, dim) float32.
    """
    exponent = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    frequency = 1.0 / (theta**exponent)
    if scaling is not None:
        frequency = stretch(frequency, scaling)
    if torch.compiler.is_compiling():
        cos, sin = _kept_turns(positions, frequency)
        return cos, sin
    return _turns(positions, frequency)


def _turns(positions: Tensor, frequency: Tensor) -> tuple[Tensor, Tensor]:
    angle = positions[:, None, :, None].float() * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


@torch.library.custom_op("causerie::turns", mutates_args=())
def _kept_turns(positions: Tensor, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """`_turns` as one operator: seen through, a compiler computes every cosine again in each layer that needs it."""
    return _turns(positions, frequency)


@_kept_turns.register_fake
def _(positions: Tensor, frequency: Tensor) -> tuple[Tensor, Tensor]:
    made = frequency.new_empty(positions.shape[0], 1, positions.shape[1], 2 * frequency.shape[0])
    return made, torch.empty_like(made)


def stretch(frequency: Tensor, scaling: RopeScaling) -> Tensor:
    """Rotary frequencies (dim/2,) for a longer context; the two rules are those of `RopeScaling`."""
    slowed = frequency / scaling.factor
    if scaling.kind == "linear":
        return slowed
    turns = scaling.original_max_seq_len * frequency / (2 * math.pi)
    share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    share = share.clamp(0.0, 1.0)
    return (1 - share) * slowed + share * frequency


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads (B, H, T, head_dim) by their positions, in float32, keeping the dtype.

    Where cos and sin are narrower than the heads, the dimensions beyond them pass unrotated.
    """
    if cos.shape[-1] < x.shape[-1]:
        turned, rest = x.split((cos.shape[-1], x.shape[-1] - cos.shape[-1]), dim=-1)
        return torch.cat((rotate(turned, cos, sin), rest), dim=-1)
    if torch.compiler.is_compiling():
        return _rotate_by_halves(x, cos, sin)
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * cos + turned * sin).type_as(x)


def _rotate_by_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` without slices and joins, which a compiler for CPUs does not vectorise (least of all backward)."""
    swapped = x.float().unflatten(-1, (2, -1)).flip(-2)
    sign = 2 * torch.arange(2, device=x.device)[:, None] - 1
    return (x * cos + (swapped * (sin.unflatten(-1, (2, -1)) * sign)).flatten(-2)).type_as(x)


Turn = tuple[Tensor, Tensor] | None
"""Cosines and sines of a layer's rotation; None in families with learned positions."""


class Attention(nn.Module):
    """Projections, head norms and rotation around an `Attend`, which does the attending."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        row, q, kv = shape.row, shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
        self.layer = layer
        self.head_dim = shape.head_dim
        self.fused = row.fused_qkv
        self.sizes = (q, kv, kv)
        if self.fused:
            self.qkv_proj = Linear(shape.n_embd, q + 2 * kv, bias=row.qkv_bias)
        else:
            self.q_proj = Linear(shape.n_embd, q, bias=row.qkv_bias)
            self.k_proj = Linear(shape.n_embd, kv, bias=row.qkv_bias)
            self.v_proj = Linear(shape.n_embd, kv, bias=row.qkv_bias)
        self.o_proj = Linear(q, shape.n_embd, bias=row.o_bias)
        self.q_norm = RMSNorm(shape.head_dim, shape.norm_eps, row.norm_offset) if row.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(shape.head_dim, shape.norm_eps, row.norm_offset) if row.qk_norm else nn.Identity()

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        heads = (*x.shape[:-1], -1, self.head_dim)
        if self.fused:
            wide_q, wide_k, wide_v = self.qkv_proj(x).split(self.sizes, dim=-1)
        else:
            wide_q, wide_k, wide_v = joint_product(x, self.q_proj, self.k_proj, self.v_proj)
        q, k = self._heads(wide_q, self.q_norm, turn), self._heads(wide_k, self.k_norm, turn)
        v = wide_v.view(heads).transpose(1, 2)
        mixed = attend(self.layer, q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:-1], -1))

    def _heads(self, wide: Tensor, norm: nn.Module, turn: Turn) -> Tensor:
        """Queries or keys, (B, T, heads · head_dim) → (B, heads, T, head_dim), normed and turned."""
        if turn is not None and isinstance(norm, RMSNorm) and wants_turned_heads(wide, turn[0], self.head_dim):
            made: Tensor = TurnedHeads.apply(wide, norm.factor, *turn, norm.eps)
            return made
        heads = norm(wide.view(*wide.shape[:-1], -1, self.head_dim)).transpose(1, 2)
        return heads if turn is None else rotate(heads, *turn)


class MLP(nn.Module):
    """Gated MLP: down(activation(gate(x)) · up(x)) (arXiv:2002.05202), or without a gate down(activation(up(x)))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        row = shape.row
        self.activation = row.activation
        self.gated, self.fused = row.gated, row.fused_gate_up
        if self.fused:
            self.gate_up_proj = Linear(shape.n_embd, 2 * shape.ffn_dim, bias=row.mlp_bias)
        elif self.gated:
            self.gate_proj = Linear(shape.n_embd, shape.ffn_dim, bias=row.mlp_bias)
        if not self.fused:
            self.up_proj = Linear(shape.n_embd, shape.ffn_dim, bias=row.mlp_bias)
        self.down_proj = Linear(shape.ffn_dim, shape.n_embd, bias=row.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        if not self.gated:
            return self.down_proj(activate(self.up_proj(x), self.activation))
        if self.fused:
            gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
            return self.down_proj(activate(gate, self.activation) * up)
        gate, up = joint_product(x, self.gate_proj, self.up_proj)
        return self.down_proj(activate(gate, self.activation) * up)


class Block(nn.Module):
    """Attention and MLP on the residual stream, with norms where the family has them (see `Family.norm_place`)."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.place = shape.row.norm_place
        self.self_attn = Attention(shape, layer)
        self.mlp = MLP(shape)
        if self.place != "post":
            bare = layer == 0 and not shape.row.first_norm
            self.input_layernorm = nn.Identity() if bare else make_norm(shape)
        if self.place != "parallel":
            self.post_attention_layernorm = make_norm(shape)
        if self.place == "sandwich":
            self.pre_feedforward_layernorm = make_norm(shape)
        if self.place in ("sandwich", "post"):
            self.post_feedforward_layernorm = make_norm(shape)

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        if self.place == "post":
            x = self.post_attention_layernorm(x + self.self_attn(x, turn, attend))
            return self.post_feedforward_layernorm(x + self.mlp(x))
        normed = self.input_layernorm(x)
        mixed = self.self_attn(normed, turn, attend)
        if self.place == "parallel":
            return x + mixed + self.mlp(normed)
        if self.place == "sandwich":
            x = x + self.post_attention_layernorm(mixed)
            return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x))


class PredictionHead(nn.Module):
    """What a masked language model does before its output projection: dense, activation, norm."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.activation = shape.row.activation
        self.dense = Linear(shape.n_embd, shape.n_embd, bias=shape.row.prediction_bias)
        self.norm = make_norm(shape)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        return self.norm(activate(self.dense(x), self.activation))
