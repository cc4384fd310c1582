"""The parts every family is built from: norm, rotation, attention, MLP, block.

Module and parameter names are Hugging Face's, so that a state dict *is* the content of `model.safetensors`
(with `model.` before all but the output projection).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.model.attend import Attend
from causerie.model.shape import ModelShape


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, times (offset + weight), in the input's dtype (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float, offset: float) -> None:
        super().__init__()
        self.eps = eps
        self.offset = offset
        self.weight = nn.Parameter(torch.full((size,), 1.0 - offset))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) → the same shape and dtype."""
        wide = x.float()
        unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (unit * (self.weight.float() + self.offset)).type_as(x)


def rotation(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding (arXiv:2104.09864).

    Args:
        positions: (B, T) or (1, T) integers.
        head_dim: size of a head; pairs are (i, i + head_dim/2).
        theta: base of the frequencies.

    Returns:
        cos, sin: (B or 1, 1, T, head_dim) float32.
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angle = positions[:, None, :, None].float() * (1.0 / (theta**exponent))
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads (B, H, T, head_dim) by their positions, in float32, keeping the dtype."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * cos + turned * sin).type_as(x)


class Attention(nn.Module):
    """Projections, head norms and rotation around an `Attend`, which does the attending."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        row, q, kv = shape.row, shape.n_head * shape.head_dim, shape.n_kv_head * shape.head_dim
        self.layer = layer
        self.head_dim = shape.head_dim
        self.q_proj = nn.Linear(shape.n_embd, q, bias=row.qkv_bias)
        self.k_proj = nn.Linear(shape.n_embd, kv, bias=row.qkv_bias)
        self.v_proj = nn.Linear(shape.n_embd, kv, bias=row.qkv_bias)
        self.o_proj = nn.Linear(q, shape.n_embd, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, shape.norm_eps, row.norm_offset) if row.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(shape.head_dim, shape.norm_eps, row.norm_offset) if row.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        heads = (*x.shape[:-1], -1, self.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        mixed = attend(self.layer, q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:-1], -1))


class MLP(nn.Module):
    """Gated MLP: down(activation(gate(x)) · up(x)) (arXiv:2002.05202)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.activation = shape.row.activation
        self.gate_proj = nn.Linear(shape.n_embd, shape.ffn_dim, bias=False)
        self.up_proj = nn.Linear(shape.n_embd, shape.ffn_dim, bias=False)
        self.down_proj = nn.Linear(shape.ffn_dim, shape.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) → (..., D)."""
        gate = self.gate_proj(x)
        gate = F.silu(gate) if self.activation == "silu" else F.gelu(gate, approximate="tanh")
        return self.down_proj(gate * self.up_proj(x))


class Block(nn.Module):
    """Attention and MLP on the residual stream; with sandwich norms each output is normed before it joins."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        row = shape.row
        self.sandwich = row.sandwich_norms
        self.self_attn = Attention(shape, layer)
        self.mlp = MLP(shape)
        self.input_layernorm = RMSNorm(shape.n_embd, shape.norm_eps, row.norm_offset)
        self.post_attention_layernorm = RMSNorm(shape.n_embd, shape.norm_eps, row.norm_offset)
        if self.sandwich:
            self.pre_feedforward_layernorm = RMSNorm(shape.n_embd, shape.norm_eps, row.norm_offset)
            self.post_feedforward_layernorm = RMSNorm(shape.n_embd, shape.norm_eps, row.norm_offset)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        mixed = self.self_attn(self.input_layernorm(x), cos, sin, attend)
        if self.sandwich:
            x = x + self.post_attention_layernorm(mixed)
            return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x))
