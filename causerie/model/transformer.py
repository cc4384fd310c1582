"""The transformer: token ids in, hidden states out; logits on request."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from causerie.core import seed_for
from causerie.model.attend import Attend, causal_attend
from causerie.model.parts import Block, RMSNorm, rotation
from causerie.model.shape import ModelShape


class Transformer(nn.Module):
    """A decoder of any family in the table; weights come from `init_model` or `load_model`."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.n_embd)
        self.layers = nn.ModuleList(Block(shape, layer) for layer in range(shape.n_layer))
        self.norm = RMSNorm(shape.n_embd, shape.norm_eps, shape.row.norm_offset)
        self.lm_head = None if shape.tie_embeddings else nn.Linear(shape.n_embd, shape.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output projection, (V, D): the embedding itself where tied."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, ids: Tensor, *, positions: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """Hidden states after the final norm.

        Args:
            ids: (B, T) integers.
            positions: (B, T) or (1, T) integers for the rotation; None counts from 0.
            attend: who sees whom; None is plain causal attention.

        Returns:
            (B, T, D) in the weights' dtype.
        """
        length = ids.shape[1]
        if positions is None:
            positions = torch.arange(length, device=ids.device)[None]
        if attend is None:
            attend = causal_attend(self.shape, seq_len=length, device=ids.device)
        shape = self.shape
        turns = {theta: rotation(positions, shape.head_dim, theta) for theta in self._thetas()}
        x = self.embed_tokens(ids)
        if shape.row.scale_embedding:
            x = x * shape.embed_scale
        for layer, block in enumerate(self.layers):
            x = block(x, *turns[shape.theta(layer)], attend)
        return self.norm(x)

    def _thetas(self) -> list[float]:
        return sorted({self.shape.theta(layer) for layer in range(self.shape.n_layer)})

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token of the vocabulary, (..., D) → (..., V) float32."""
        return F.linear(hidden, self.head_weight).float()


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
            elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                weight.normal_(0.0, embedding, generator=generator)
            elif weight.ndim == 2:
                weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
            elif name.endswith("bias"):
                weight.zero_()
    return model
