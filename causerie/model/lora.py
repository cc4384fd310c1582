"""Low-rank adapters: added to linear layers, trained, merged (arXiv:2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.core import CauserieError, seed_for
from causerie.model.products import Linear
from causerie.model.shape import ModelShape
from causerie.model.transformer import Transformer


def lora_targets(shape: ModelShape) -> tuple[str, ...]:
    """Last parts of the names of every linear layer inside the blocks of such a model."""
    row = shape.row
    qkv = ("qkv_proj",) if row.fused_qkv else ("q_proj", "k_proj", "v_proj")
    up = ("gate_up_proj",) if row.fused_gate_up else ("gate_proj", "up_proj") if row.gated else ("up_proj",)
    return (*qkv, "o_proj", *up, "down_proj")


class LoraProduct(torch.autograd.Function):
    """x Wᵀ + bias + scale · (x Aᵀ) Bᵀ with W frozen: the low-rank terms are added inside the products.

    Kept for the gradient are x and scale · x Aᵀ. Within autocast the products run in the autocast dtype.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """(..., in) → (..., out), in the dtype of the products."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(dtype)
            narrow = torch.mm(flat, a.to(dtype).T).mul_(scale)
            out = F.linear(flat, weight.to(dtype), None if bias is None else bias.to(dtype))
            out.addmm_(narrow, b.to(dtype).T)
        ctx.save_for_backward(flat, narrow, weight, a, b)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, x.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to x (where wanted), A and B."""
        flat, narrow, weight, a, b = ctx.saved_tensors
        by_out = grads[0].reshape(-1, grads[0].shape[-1])
        by_narrow = torch.mm(by_out, b.to(flat.dtype)).mul_(ctx.scale)
        by_a, by_b = torch.mm(by_narrow.T, flat).to(a.dtype), torch.mm(by_out.T, narrow).to(b.dtype)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = torch.mm(by_out, weight.to(flat.dtype)).addmm_(by_narrow, a.to(flat.dtype))
            by_x = by_x.to(ctx.dtype).view(ctx.shape)
        return by_x, None, None, by_a, by_b, None


class LoraLinear(nn.Linear):
    """A linear layer with a frozen weight W plus a trained low-rank term: x Wᵀ + scale · (x Aᵀ) Bᵀ.

    Attributes:
        lora_A: (rank, in) float32. lora_B: (out, rank) float32, zero at first, so the layer starts as it was.
        scale: factor on the low-rank term; products run in the dtype of `x`.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, generator: torch.Generator | None) -> None:
        with torch.device("meta"):  # no weights of its own: the layer's are taken over
            super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight = linear.weight
        self.bias = linear.bias
        self.requires_grad_(False)
        self.scale = scale
        bound = 1 / math.sqrt(linear.in_features)
        start = torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(start.to(linear.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank, device=linear.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        if self._wants_product():
            made: Tensor = LoraProduct.apply(x, self.weight, self.bias, self.lora_A, self.lora_B, self.scale)
            return made
        narrow = F.linear(x, self.lora_A.to(x.dtype)) * self.scale
        return F.linear(x, self.weight, self.bias) + F.linear(narrow, self.lora_B.to(x.dtype))

    def _wants_product(self) -> bool:
        """Whether to take `LoraProduct`: in training, as written (a compiler fuses by itself), with whole weights."""
        trained = torch.is_grad_enabled() and self.lora_A.requires_grad and not self.weight.requires_grad
        return trained and not torch.compiler.is_compiling() and not hasattr(self.lora_A, "full_tensor")

    def merged(self) -> nn.Linear:
        """A plain layer with the low-rank term added to the weight (in float32, then rounded to its dtype)."""
        with torch.device("meta"):
            linear = Linear(self.in_features, self.out_features, bias=False)
        with torch.no_grad():
            weight = self.weight.float() + self.scale * (self.lora_B.float() @ self.lora_A.float())
        linear.weight = nn.Parameter(weight.to(self.weight.dtype))
        linear.bias = self.bias
        return linear


@dataclass(frozen=True)
class LoraConfig:
    """How an adapter was made."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Names, or last parts of names, of the layers that have one."""
    rank_stabilised: bool = False

    @property
    def scale(self) -> float:
        """Factor on the low-rank term: alpha/rank, or alpha/sqrt(rank) when rank-stabilised (arXiv:2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def add_lora(
    model: Transformer, rank: int, alpha: float, targets: Sequence[str] | None = None, *, seed: int = 0
) -> None:
    """Add an adapter in place and freeze everything else; the output stays the same bit for bit until it is trained.

    Args:
        model: a model without an adapter.
        rank: rank of every low-rank term.
        alpha: the term is scaled by alpha/rank.
        targets: last parts of the names of the linear layers that get one; None for `lora_targets`, all in the blocks.
        seed: of the random A matrices; B is zero.

    Raises:
        CauserieError: CAU-3008 when the rank is impossible, a target matches nothing, or there is an adapter already.
    """
    targets = lora_targets(model.shape) if targets is None else targets
    found = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    found = [name for name in found if name.rpartition(".")[2] in targets]
    if missing := set(targets) - {name.rpartition(".")[2] for name in found}:
        known = ", ".join(lora_targets(model.shape))
        raise bad_adapter(f"no linear layer is called {sorted(missing)[0]!r}", "lora targets", f"choose from {known}")
    attach_lora(model, found, LoraConfig(rank, alpha, tuple(targets)), seed=seed)


def attach_lora(model: Transformer, names: Sequence[str], config: LoraConfig, *, seed: int = 0) -> None:
    """Add an adapter to the linear layers of these names; `add_lora` chooses them by the ends of their names.

    Raises:
        CauserieError: CAU-3008 when the rank is impossible or there is an adapter already.
    """
    if config.rank < 1:
        raise bad_adapter(f"the rank {config.rank} is below 1", "lora rank", "give a rank such as 16")
    if lora_parameters(model):
        raise bad_adapter("the model has an adapter already", "add_lora", "merge it or train it further")
    model.requires_grad_(False)
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        generator = torch.Generator().manual_seed(seed_for(seed, "lora", name))
        _replace(model, name, LoraLinear(layer, config.rank, config.scale, generator))
    _remember(model, config)


def lora_parameters(model: Transformer) -> dict[str, nn.Parameter]:
    """The adapter's parameters by their names in the model; empty when there is no adapter."""
    return {name: p for name, p in model.named_parameters() if name.endswith((".lora_A", ".lora_B"))}


def merge_lora(model: Transformer) -> None:
    """Fold the adapter into the weights in place: a plain model again, whose parameters can all be trained."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLinear):
            _replace(model, name, layer.merged())
    _remember(model, None)
    model.requires_grad_(True)


def _remember(model: Transformer, config: LoraConfig | None) -> None:
    object.__setattr__(model, "lora_config", config)


def lora_config(model: Transformer) -> LoraConfig | None:
    """What the model's adapter was made with; None when there is none."""
    found = getattr(model, "lora_config", None)
    return found if isinstance(found, LoraConfig) else None


def _replace(model: Transformer, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def bad_adapter(cause: str, where: str, fix: str) -> CauserieError:
    """The error of adapters that cannot be added or do not fit."""
    return CauserieError("CAU-3008", cause, where=where, fix=fix)
