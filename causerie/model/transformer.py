"""The transformer: token ids in, hidden states out; logits on request."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.core import CauserieError, seed_for
from causerie.model.attend import Attend, plain_attend
from causerie.model.lookup import rows_of
from causerie.model.parts import Block, PredictionHead, make_norm, rotation
from causerie.model.shape import ModelShape, RopeScaling


class Transformer(nn.Module):
    """A decoder or encoder of any family in the table; weights come from `init_model` or `load_model`.

    Attributes:
        extras: what training adds that folds into the plain model (`fold`); None in a plain model.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        row = shape.row
        self.embed_tokens = _table(shape.vocab_size, shape.n_embd)
        self.embed_positions = None if row.rotary else _table(shape.max_seq_len, shape.n_embd)
        self.embed_types = _table(row.token_types, shape.n_embd) if row.token_types else None
        self.embed_norm = make_norm(shape) if row.embed_norm else None
        self.layers = nn.ModuleList(Block(shape, layer) for layer in range(shape.n_layer))
        self.norm = make_norm(shape) if row.final_norm else nn.Identity()
        self.head = PredictionHead(shape) if row.prediction_head else None
        self.lm_head = None if shape.tie_embeddings else nn.Linear(shape.n_embd, shape.vocab_size, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(shape.vocab_size)) if row.head_bias else None
        self.extras: nn.Module | None = None

    @property
    def head_weight(self) -> Tensor:
        """The output projection, (V, D): the embedding itself where tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        attend: Attend | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            ids: (B, T) integers.
            positions: (B, T) or (1, T) integers; None counts from 0.
            attend: who sees whom; None is plain causal attention, or in an encoder everyone.
            token_types: (B, T) segment numbers for families that have them; None is all zero.

        Returns:
            (B, T, D) in the weights' dtype.

        Raises:
            CauserieError: CAU-3009 when the row is longer than a learned table of positions.
        """
        length = ids.shape[1]
        if positions is None:
            positions = torch.arange(length, device=ids.device)[None]
            self._check_length(length)
        if attend is None:
            attend = plain_attend(self.shape, seq_len=length, device=ids.device)
        turns = self._turns(positions)
        x = self._embed(ids, positions, token_types)
        for layer, block in enumerate(self.layers):
            if self.extras is not None:
                x = self.extras(x, layer)
            x = block(x, turns[self._turn_key(layer)] if turns else None, attend)
        return self.norm(x)

    def _embed(self, ids: Tensor, positions: Tensor, token_types: Tensor | None) -> Tensor:
        x = rows_of(self.embed_tokens, ids)
        if self.shape.row.scale_embedding:
            x = x * self.shape.embed_scale
        if self.embed_types is not None:
            x = x + (self.embed_types.weight[0] if token_types is None else self.embed_types(token_types))
        if self.embed_positions is not None:
            x = x + self.embed_positions(positions)
        return x if self.embed_norm is None else self.embed_norm(x)

    def _turn_key(self, layer: int) -> tuple[float, RopeScaling | None]:
        return self.shape.theta(layer), self.shape.scaling(layer)

    def _turns(self, positions: Tensor) -> dict[tuple[float, RopeScaling | None], tuple[Tensor, Tensor]]:
        """Rotations by base and stretching; empty where positions are learned."""
        shape = self.shape
        if not shape.row.rotary:
            return {}
        keys = dict.fromkeys(self._turn_key(layer) for layer in range(shape.n_layer))
        return {key: rotation(positions, shape.rotary_dim or shape.head_dim, *key) for key in keys}

    def _check_length(self, length: int) -> None:
        if not self.shape.row.rotary and length > self.shape.max_seq_len:
            raise CauserieError(
                "CAU-3009",
                f"{length} tokens, but the model has learned {self.shape.max_seq_len} positions",
                where="Transformer.forward",
                fix="cut the text into shorter parts",
            )

    def head_input(self, hidden: Tensor) -> Tensor:
        """What the output projection is applied to, (..., D): the hidden states, in encoders after the MLM head."""
        return hidden if self.head is None else self.head(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token of the vocabulary, (..., D) → (..., V) float32."""
        return F.linear(self.head_input(hidden), self.head_weight, self.head_bias).float()


def init_model(shape: ModelShape, seed: int) -> Transformer:
    """A fresh model on the CPU in float32, the same for the same seed on every machine.

    Matrices are normal with deviation 1/sqrt(inputs), except the two that write to the residual stream, which
    start at zero; the embedding has deviation 0.02, or less where a tied one would make a token predict itself
    (its own logit starts at deviation · width, held to 2); norms start at identity, biases at zero.
    """
    embedding = min(0.02, 2.0 / shape.n_embd) if shape.tie_embeddings else 0.02
    with torch.device("cpu"):
        model = Transformer(shape)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            generator = torch.Generator().manual_seed(seed_for(seed, "init", name))
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
            elif name.startswith(("embed_tokens.", "embed_positions.", "embed_types.", "lm_head.")):
                weight.normal_(0.0, embedding, generator=generator)
            elif weight.ndim == 2:
                weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
            elif name.endswith("bias"):
                weight.zero_()
    return model


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding; on the meta device without drawing numbers, for which torch would import its compiler (seconds)."""
    weight = torch.empty(rows, width)
    return nn.Embedding(rows, width, _weight=weight) if weight.is_meta else nn.Embedding(rows, width)
