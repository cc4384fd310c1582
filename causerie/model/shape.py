"""What a model is, as plain data: its family, its sizes, its number of parameters."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Final, Literal

from causerie.core import CauserieError
from causerie.model.families import FAMILIES, Family

DEFAULT_THETA: Final = 100_000.0
SMALL_DEPTH: Final = 8
"""Up to this depth `shape_from_depth` draws the slim CPU series."""


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for longer contexts than the model was first trained on."""

    kind: Literal["linear", "llama3"]
    """"linear" divides every frequency by `factor` (arXiv:2306.15595); "llama3" only the slow ones (Llama 3.1)."""
    factor: float
    low_freq_factor: float = 1.0
    """llama3: waves longer than the original context over this are stretched in full."""
    high_freq_factor: float = 4.0
    """llama3: waves shorter than the original context over this are left alone."""
    original_max_seq_len: int = 8192
    """llama3: the context of the first training."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of one model. Checked when made.

    Raises:
        CauserieError: CAU-3001 naming the field that is impossible.
    """

    family: str
    """A key of `FAMILIES`."""
    n_layer: int
    """Transformer blocks."""
    n_embd: int
    """Width of the residual stream."""
    n_head: int
    """Query heads."""
    n_kv_head: int
    """Key and value heads; divides `n_head` (grouped-query attention)."""
    head_dim: int
    """Size of a head, even."""
    ffn_dim: int
    """Inner width of the MLP."""
    vocab_size: int
    """Rows of the embedding."""
    rope_theta: float = DEFAULT_THETA
    """Base of the rotary embedding in layers with full attention."""
    norm_eps: float = 1e-6
    """Added to the mean square in every RMSNorm."""
    tie_embeddings: bool = True
    """Whether the output projection is the embedding."""
    max_seq_len: int = 2048
    """Longest sequence the model is meant for (recorded; the code has no tables of this length)."""
    sliding_window: int = 0
    """Tokens that a local layer sees, itself included (an encoder's on both sides); 0 without local layers."""
    local_layers: tuple[bool, ...] = ()
    """Per layer whether it is local; empty means none is."""
    rope_local_theta: float = 0.0
    """Base of the rotary embedding in local layers; 0 means the same as `rope_theta`."""
    query_scale: float = 0.0
    """Factor on query-key products; 0 means 1/sqrt(head_dim)."""
    rotary_dim: int = 0
    """Leading dimensions of a head that are rotated, even; 0 means all."""
    rope_scaling: RopeScaling | None = None
    """Stretching of the rotary frequencies in layers with full attention."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise _impossible("family", self.family, f"known families: {', '.join(FAMILIES)}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 < value <= most:
                raise _impossible(name, value, f"an integer from 1 to {most} is needed")
        if self.n_head % self.n_kv_head:
            raise _impossible("n_kv_head", self.n_kv_head, f"it must divide n_head = {self.n_head}")
        if self.row.rotary and self.head_dim % 2:
            raise _impossible("head_dim", self.head_dim, "rotary embedding needs an even size")
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise _impossible("rotary_dim", self.rotary_dim, f"an even number up to head_dim = {self.head_dim}")
        if (self.rotary_dim or self.rope_scaling) and not self.row.rotary:
            raise _impossible("rotary_dim, rope_scaling", self.family, "this family has learned positions")
        if self.local_layers and len(self.local_layers) != self.n_layer:
            raise _impossible("local_layers", self.local_layers, f"one entry for each of {self.n_layer} layers")
        if any(self.local_layers) and self.sliding_window < 1:
            raise _impossible("sliding_window", self.sliding_window, "local layers need a window of at least 1")
        if self.rope_theta <= 0 or self.norm_eps <= 0 or self.rope_local_theta < 0 or self.query_scale < 0:
            raise _impossible("rope_theta, norm_eps, rope_local_theta, query_scale", "", "they must be positive")

    @property
    def row(self) -> Family:
        """The family's row of the table."""
        return FAMILIES[self.family]

    @property
    def scale(self) -> float:
        """Factor on query-key products."""
        return self.query_scale or self.head_dim**-0.5

    @property
    def embed_scale(self) -> float:
        """Factor on embeddings on their way in."""
        return float(self.n_embd) ** 0.5 if self.row.scale_embedding else 1.0

    def window(self, layer: int) -> int:
        """Tokens that layer `layer` sees, itself included; 0 = all before it."""
        return self.sliding_window if self.local_layers and self.local_layers[layer] else 0

    def theta(self, layer: int) -> float:
        """Base of the rotary embedding in layer `layer`."""
        return (self.rope_local_theta or self.rope_theta) if self.window(layer) else self.rope_theta

    def scaling(self, layer: int) -> RopeScaling | None:
        """Stretching of layer `layer`'s rotary frequencies; local layers with a base of their own have none."""
        return None if self.window(layer) and self.rope_local_theta else self.rope_scaling

    @property
    def n_params(self) -> int:
        """Parameters, a tied embedding counted once."""
        tables = self.vocab_size * (1 if self.tie_embeddings else 2) + self.row.token_types
        tables += 0 if self.row.rotary else self.max_seq_len
        return self.n_params_without_embedding + tables * self.n_embd

    @property
    def n_params_without_embedding(self) -> int:
        """Parameters outside the embeddings (of tokens, positions, types) and the output projection's matrix."""
        row = self.row
        q, kv = self.n_head * self.head_dim, self.n_kv_head * self.head_dim
        biases = (q + 2 * kv) * row.qkv_bias + self.n_embd * row.o_bias
        biases += (self.ffn_dim * (2 if row.gated else 1) + self.n_embd) * row.mlp_bias
        per_layer = self._layer_matrices + biases + 2 * self.head_dim * row.qk_norm
        norm = self.n_embd * (2 if row.norm_bias else 1)
        norms = self.n_layer * {"pre": 2, "post": 2, "sandwich": 4, "parallel": 1}[row.norm_place]
        norms += row.embed_norm + row.final_norm + row.prediction_head - (not row.first_norm)
        head = self._head_dense + self.n_embd * row.prediction_bias + self.vocab_size * row.head_bias
        return self.n_layer * per_layer + norms * norm + head

    @property
    def n_matrix_params(self) -> int:
        """Parameters that every token is multiplied with: all projections, with the output projection, tied or not."""
        return self.n_layer * self._layer_matrices + self._head_dense + self.vocab_size * self.n_embd

    @property
    def _layer_matrices(self) -> int:
        attention = 2 * self.n_embd * (self.n_head + self.n_kv_head) * self.head_dim
        return attention + (3 if self.row.gated else 2) * self.n_embd * self.ffn_dim

    @property
    def _head_dense(self) -> int:
        return self.n_embd**2 if self.row.prediction_head else 0

    def weight_bytes(self, bytes_per_param: int = 4) -> int:
        """Bytes of the weights alone."""
        return self.n_params * bytes_per_param

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes of keys and values that one token of context costs (windows not counted)."""
        return 2 * self.n_layer * self.n_kv_head * self.head_dim * bytes_per_value

    def training_bytes(self) -> int:
        """Bytes of float32 weights, gradients and Adam's two moments; activations come on top."""
        return self.n_params * 16


_MOST: Final = MappingProxyType(
    {
        "n_layer": 1024,
        "n_embd": 1 << 17,
        "n_head": 1024,
        "n_kv_head": 1024,
        "head_dim": 4096,
        "ffn_dim": 1 << 20,
        "vocab_size": 1 << 24,
        "max_seq_len": 1 << 28,
    }
)
assert set(_MOST) <= {field.name for field in fields(ModelShape)}


def _impossible(name: str, value: object, fix: str) -> CauserieError:
    return CauserieError("CAU-3001", f"{name} cannot be {value!r}", where=f"model shape, field {name}", fix=fix)


def shape_from_depth(depth: int, vocab_size: int, max_seq_len: int = 2048) -> ModelShape:
    """Our own series of Qwen3-dense models, one dial.

    Up to depth 8 (CPU): width 48·depth, MLP 128·depth, `depth` heads of 32: 0.18M parameters without
    embedding at depth 2, 1.5M at 4, 5.0M at 6, 11.8M at 8. Above (GPU): width 64·depth, heads of 64, MLP 8/3
    of the width. Two query heads share a key head where depth is even. Tied embeddings up to depth 12.

    Raises:
        CauserieError: CAU-3001 when the depth or the vocabulary is impossible.
    """
    if not 1 <= depth <= 64:
        raise _impossible("depth", depth, "choose a depth from 1 to 64")
    small = depth <= SMALL_DEPTH
    n_embd = depth * (48 if small else 64)
    return ModelShape(
        family="qwen3",
        n_layer=depth,
        n_embd=n_embd,
        n_head=depth,
        n_kv_head=depth // 2 if depth % 2 == 0 else depth,
        head_dim=32 if small else 64,
        ffn_dim=128 * depth if small else -(-n_embd * 8 // (3 * 64)) * 64,
        vocab_size=vocab_size,
        tie_embeddings=depth <= 12,
        max_seq_len=max_seq_len,
    )


def encoder_of(shape: ModelShape) -> ModelShape:
    """A decoder's sizes in ModernBERT's shape; every layer sees the whole text.

    The width is shared out to the heads, as ModernBertForMaskedLM wants it (in our series 48 each up to depth 8,
    64 above), and every head has keys of its own.

    Raises:
        CauserieError: CAU-3001 when the heads do not divide the width into even sizes.
    """
    return replace(
        shape,
        family="modernbert",
        n_kv_head=shape.n_head,
        head_dim=shape.n_embd // shape.n_head,
        norm_eps=1e-5,
        tie_embeddings=True,
    )
