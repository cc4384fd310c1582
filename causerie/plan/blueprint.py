"""What is planned: a model's shape, with experts or without; named plans, dense ones from `model`'s table."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from causerie.core import CauserieError
from causerie.model import NAMED_SHAPES, ModelShape, named_shape


@dataclass(frozen=True)
class Experts:
    """The mixture of experts that stands in the place of the MLP. Checked when made.

    Raises:
        CauserieError: CAU-4301 naming the field that is impossible.
    """

    count: int
    """Experts in a layer."""
    active: int
    """Experts that a token is sent to."""
    dim: int
    """Inner width of an expert."""
    shared_dim: int = 0
    """Inner width of the expert that every token passes; 0: there is none."""
    dense_layers: int = 0
    """Layers (the first ones) that keep the MLP of the shape."""

    def __post_init__(self) -> None:
        for name in ("count", "active", "dim"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise _impossible(f"experts.{name}", getattr(self, name), "give an integer of at least 1")
        if self.active > self.count:
            raise _impossible("experts.active", self.active, f"at most experts.count = {self.count} can be active")
        if min(self.shared_dim, self.dense_layers) < 0:
            raise _impossible("experts.shared_dim, experts.dense_layers", "negative", "give 0 or more")


@dataclass(frozen=True)
class Blueprint:
    """A model to be counted and planned: torch-free, dense or with experts."""

    name: str
    shape: ModelShape
    experts: Experts | None = None
    attention_params: int = 0
    """Matrix parameters of a layer's attention where the shape's are others (latent attention); 0: they are those."""
    cache_values: int = 0
    """Cached numbers per token and layer where they are not keys and values of all key heads; 0: they are."""
    gated: bool = True
    """Whether the experts have a gate projection."""
    note: str = ""
    """What is a published figure here and what is our reading."""

    def __post_init__(self) -> None:
        if self.experts and self.experts.dense_layers > self.shape.n_layer:
            raise _impossible("experts.dense_layers", self.experts.dense_layers, f"there are {self.shape.n_layer}")

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        return self.shape.n_layer - self.experts.dense_layers if self.experts else 0

    @property
    def expert_matrix(self) -> int:
        """Parameters of one expert."""
        return (3 if self.gated else 2) * self.shape.n_embd * self.experts.dim if self.experts else 0

    @property
    def shared_matrix(self) -> int:
        """Parameters of a layer's shared expert."""
        return (3 if self.gated else 2) * self.shape.n_embd * self.experts.shared_dim if self.experts else 0

    @property
    def mlp_matrix(self) -> int:
        """Parameters of a dense layer's MLP."""
        return (3 if self.shape.row.gated else 2) * self.shape.n_embd * self.shape.ffn_dim

    @property
    def attention_matrix(self) -> int:
        """Matrix parameters of a layer's attention."""
        shape = self.shape
        return self.attention_params or 2 * shape.n_embd * (shape.n_head + shape.n_kv_head) * shape.head_dim

    @property
    def n_params(self) -> int:
        """All parameters, a tied embedding counted once; biases and norms of expert layers are those of a dense one."""
        shape = self.shape
        total = shape.n_params
        if self.attention_params:
            own = 2 * shape.n_embd * (shape.n_head + shape.n_kv_head) * shape.head_dim
            total += shape.n_layer * (self.attention_params - own)
        if self.experts:
            router = self.experts.count * shape.n_embd
            layer = self.experts.count * self.expert_matrix + self.shared_matrix + router
            total += self.expert_layers * (layer - self.mlp_matrix)
        return total

    @property
    def expert_params(self) -> int:
        """Parameters in routed experts, which expert parallelism spreads."""
        return self.expert_layers * self.experts.count * self.expert_matrix if self.experts else 0

    @property
    def active_matrix_params(self) -> int:
        """Parameters that a token is multiplied with: active experts and the output projection in, lookups out."""
        shape = self.shape
        dense = shape.n_layer - self.expert_layers
        total = shape.n_matrix_params - shape.n_layer * (
            2 * shape.n_embd * (shape.n_head + shape.n_kv_head) * shape.head_dim + self.mlp_matrix
        )
        total += shape.n_layer * self.attention_matrix + dense * self.mlp_matrix
        if self.experts:
            router = self.experts.count * shape.n_embd
            total += self.expert_layers * (self.experts.active * self.expert_matrix + self.shared_matrix + router)
        return total

    @property
    def cached_values(self) -> int:
        """Numbers that a token leaves in the cache of one layer."""
        return self.cache_values or 2 * self.shape.n_kv_head * self.shape.head_dim

    def reach(self, seq_len: int) -> int:
        """Sum over layers of the tokens that a query sees at most: windows cap it."""
        shape = self.shape
        return sum(min(seq_len, shape.window(layer) or seq_len) for layer in range(shape.n_layer))


def blueprint_of(shape: ModelShape, name: str = "model") -> Blueprint:
    """A dense blueprint."""
    return Blueprint(name, shape)


def _decoder(layers: int, width: int, heads: int, kv: int, ffn: int, vocab: int, family: str = "llama") -> ModelShape:
    return ModelShape(family, layers, width, heads, kv, 128, ffn, vocab, tie_embeddings=False, max_seq_len=4096)


def _gpt(layers: int, width: int, heads: int, vocab: int = 50_368, kv: int = 0, ffn: int = 0) -> ModelShape:
    return replace(
        named_shape("gpt3-175b").shape,
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_kv_head=kv or heads,
        head_dim=width // heads,
        ffn_dim=ffn or 4 * width,
        vocab_size=vocab,
    )


def _mpt(name: str, layers: int, width: int, heads: int) -> Blueprint:
    note = "MPT of llm-foundry (scripts/train/yamls/pretrain), which has no biases; ours are counted"
    return Blueprint(name, _gpt(layers, width, heads), note=note)


_LATENT: Final = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168

_OWN: Final = (
    Blueprint(
        "mixtral-8x7b",
        _decoder(32, 4096, 32, 8, 14_336, 32_000),
        Experts(8, 2, 14_336),
        note="published: 46.7B parameters, 12.9B active (arXiv:2401.04088)",
    ),
    Blueprint(
        "qwen3-30b-a3b",
        _decoder(48, 2048, 32, 4, 6144, 151_936, "qwen3"),
        Experts(128, 8, 768),
        note="published: 30.5B parameters, 3.3B active (Qwen3 technical report)",
    ),
    Blueprint(
        "deepseek-v3",
        _decoder(61, 7168, 128, 128, 18_432, 129_280),
        Experts(256, 8, 2048, shared_dim=2048, dense_layers=3),
        attention_params=_LATENT,
        cache_values=576,
        note="published: 671B parameters, 37B active, without the multi-token head (arXiv:2412.19437)",
    ),
    Blueprint(
        "moe-1t",
        _decoder(80, 10_240, 80, 8, 24_576, 131_072),
        Experts(64, 4, 6144, shared_dim=6144),
        note="our reading of 'about a trillion parameters': only that number is published; the rest is a sound guess",
    ),
    Blueprint(
        "nemotron4-340b",
        replace(_gpt(96, 18_432, 96, 256_000, kv=8, ffn=73_728), tie_embeddings=False),
        note="arXiv:2406.11704; two MLP matrices, as published; our table counts biases and positions that it has not",
    ),
    Blueprint("bloom-176b", _gpt(70, 14_336, 112, 250_880), note="arXiv:2211.05100"),
    _mpt("mpt-125m", 12, 768, 12),
    _mpt("mpt-350m", 24, 1024, 16),
    _mpt("mpt-760m", 24, 1536, 12),
    _mpt("mpt-1b", 24, 2048, 16),
    _mpt("mpt-3b", 32, 2560, 20),
    _mpt("mpt-7b", 32, 4096, 32),
    _mpt("mpt-13b", 40, 5120, 40),
    _mpt("mpt-30b", 48, 7168, 56),
    _mpt("mpt-70b", 80, 8192, 64),
)


BLUEPRINTS: Final = MappingProxyType({row.name: row for row in _OWN})
"""Plans that `model`'s table of shapes has not: mixtures of experts, and shapes of measured runs."""


def blueprint(name: str) -> Blueprint:
    """The blueprint of a name: one of `BLUEPRINTS`, or a named shape of `model`.

    Raises:
        CauserieError: CAU-4301 with the nearest names when there is none of that name.
    """
    if name in BLUEPRINTS:
        return BLUEPRINTS[name]
    if name in NAMED_SHAPES:
        row = named_shape(name)
        return Blueprint(name, row.shape, note=f"{row.source}. {row.note}".strip(" ."))
    known = [*BLUEPRINTS, *NAMED_SHAPES]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
    raise CauserieError("CAU-4301", f"no model is called {name!r}", where="model", fix=f"choose from {', '.join(near)}")


def _impossible(field: str, value: object, fix: str) -> CauserieError:
    return CauserieError("CAU-4301", f"{field} cannot be {value!r}", where=field, fix=fix)
