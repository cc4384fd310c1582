"""Training-only parts that fold exactly into the plain model, so that what is exported is what everyone can run.

Three of them (measured gains and sources: decision 0010):

- *embedding norm*: RMSNorm without weights right after the embedding. Folds into the embedding's rows; a tied output
  projection keeps the unnormed rows, so the folded model is untied.
- *residual scales*: a learned factor on the residual stream before each block, kept as its logarithm so that it stays
  positive. RMSNorms do not see the stream's scale, so the running product of the factors is divided out of what each
  block writes to it.
- *sharper queries and keys*: weights of the head norms that start above 1. They are the plain model's own
  parameters, so there is nothing to fold.

What does not fold is left out: skips from the embedding to later layers, value embeddings, smeared tokens, softcaps.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from causerie.core import CauserieError
from causerie.model.shape import ModelShape
from causerie.model.transformer import Transformer

QK_GAIN: Final = 1.15
"""Start of the head norms' weights, with which training is a little faster (reported by nanochat)."""
_WRITERS: Final = ("self_attn.o_proj", "mlp.down_proj")
"""Layers of a block that write to the residual stream."""


class Extras(nn.Module):
    """Embedding norm and residual scales of a model in training; see `add_extras`."""

    def __init__(self, shape: ModelShape, *, embed_norm: bool, residual_scales: bool) -> None:
        super().__init__()
        self.eps = shape.norm_eps
        self.embed_norm = embed_norm
        self.log_scales = nn.Parameter(torch.zeros(shape.n_layer)) if residual_scales else None

    def forward(self, x: Tensor, layer: int) -> Tensor:
        """The residual stream (B, T, D) as it enters block `layer`."""
        if self.embed_norm and layer == 0:
            x = unit_rows(x, self.eps)
        return x if self.log_scales is None else x * self.log_scales[layer].exp().type_as(x)


def unit_rows(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without weights: (..., D) of mean square 1, computed in at least float32."""
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).type_as(x)


def add_extras(
    model: Transformer, *, embed_norm: bool = False, residual_scales: bool = False, qk_gain: float = 1.0
) -> None:
    """Add training-only parts in place; `save_model` and `fold_extras` fold them away.

    Args:
        model: of a family with RMSNorm before attention and MLP, and no extras yet.
        embed_norm: norm the embeddings.
        residual_scales: a learned factor on the residual stream before each block, 1 at first.
        qk_gain: factor on the head norms' weights of queries and keys; the same as qk_gain² on all attention scores.

    Raises:
        CauserieError: CAU-3011 when the family's parts would not let them fold, or there are extras already.
    """
    row = model.shape.row
    if model.extras is not None:
        raise _unfoldable("the model has extras already", "fold them first (fold_extras)")
    foldable = row.norm == "rms" and row.norm_place == "pre" and row.rotary and not row.embed_norm
    if (embed_norm or residual_scales) and (not foldable or row.scale_embedding):
        raise _unfoldable(f"a {row.architecture} has other norms than one before each part", "train a qwen3 or llama")
    if qk_gain != 1.0 and not row.qk_norm:
        raise _unfoldable(f"a {row.architecture} has no norms on queries and keys", "leave qk_gain at 1")
    if residual_scales and not embed_norm:
        cause = "without the embedding norm the stream is so small that the norms' epsilon feels its scale"
        raise _unfoldable(cause, "ask for embed_norm too")
    if embed_norm or residual_scales:
        extras = Extras(model.shape, embed_norm=embed_norm, residual_scales=residual_scales)
        model.extras = extras.to(model.embed_tokens.weight.device)
    if qk_gain != 1.0:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(("q_norm.weight", "k_norm.weight")):
                    weight.copy_((weight + row.norm_offset) * qk_gain - row.norm_offset)


def empty_like(model: Transformer) -> Transformer:
    """A model of the same parts, extras too, with fresh weights to be replaced; on the CPU."""
    made, extras = Transformer(model.shape), model.extras
    if isinstance(extras, Extras):
        scaled = extras.log_scales is not None
        made.extras = Extras(model.shape, embed_norm=extras.embed_norm, residual_scales=scaled)
    return made


@torch.no_grad()
def fold_extras(model: Transformer) -> Transformer:
    """The plain model that computes the same; the model itself when it has no extras.

    Exact but for rounding and the norms' epsilon. Products are formed in float64 and rounded once.

    Raises:
        CauserieError: CAU-3011 when a residual scale is beyond all numbers.
    """
    extras = model.extras
    if not isinstance(extras, Extras):
        return model
    untied = extras.embed_norm and model.shape.tie_embeddings
    shape = ModelShape(**{**vars(model.shape), "tie_embeddings": model.shape.tie_embeddings and not untied})
    state = {name: weight.detach() for name, weight in model.state_dict().items() if not name.startswith("extras.")}
    table = state["embed_tokens.weight"]
    if untied:
        state["lm_head.weight"] = table.clone()
    if extras.embed_norm:
        state["embed_tokens.weight"] = unit_rows(table.double(), extras.eps).to(table.dtype)
    if extras.log_scales is not None:
        products = extras.log_scales.detach().double().cumsum(0).exp()
        if not bool(torch.isfinite(products).all()) or bool((products <= 0).any()):
            raise _unfoldable("the residual scales have run away", "train with a lower rate, or with --no-extras")
        for layer, product in enumerate(products):
            for name in (f"layers.{layer}.{writer}.weight" for writer in _WRITERS):
                state[name] = (state[name].double() / product).to(state[name].dtype)
    with torch.device("meta"):
        plain = Transformer(shape)
    plain.load_state_dict(state, assign=True)
    return plain


def _unfoldable(cause: str, fix: str) -> CauserieError:
    return CauserieError("CAU-3011", cause, where="training-only parts", fix=fix)
