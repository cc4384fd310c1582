"""Named shapes: published models' real dimensions, each with where they are published. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from causerie.core import CauserieError
from causerie.model.shape import ModelShape, RopeScaling


@dataclass(frozen=True)
class NamedShape:
    """A published model's dimensions."""

    shape: ModelShape
    published_params: float
    """Parameters that its authors state, as they round them."""
    source: str
    """Where the dimensions stand."""
    note: str = ""
    """What is our reading, or differs from the published model."""


def named_shape(name: str) -> NamedShape:
    """The row of a named shape.

    Raises:
        CauserieError: CAU-3001 with the nearest names when there is none of that name.
    """
    if name not in NAMED_SHAPES:
        near = difflib.get_close_matches(name, NAMED_SHAPES, n=3, cutoff=0.4) or list(NAMED_SHAPES)
        raise CauserieError(
            "CAU-3001", f"no shape is called {name!r}", where="named shape", fix=f"choose from {', '.join(near)}"
        )
    return NAMED_SHAPES[name]


def _gpt(n_layer: int, n_embd: int, n_head: int, *, vocab: int = 50257, context: int = 2048) -> ModelShape:
    return ModelShape(
        "gpt2", n_layer, n_embd, n_head, n_head, n_embd // n_head, 4 * n_embd, vocab, norm_eps=1e-5, max_seq_len=context
    )


def _bert(n_layer: int, n_embd: int, n_head: int) -> ModelShape:
    return ModelShape(
        "bert", n_layer, n_embd, n_head, n_head, 64, 4 * n_embd, 30522, norm_eps=1e-12, max_seq_len=512
    )  # fmt: skip


def _modernbert(n_layer: int, n_embd: int, n_head: int, ffn_dim: int) -> ModelShape:
    return ModelShape(
        "modernbert",
        n_layer,
        n_embd,
        n_head,
        n_head,
        64,
        ffn_dim,
        50368,
        rope_theta=160_000.0,
        norm_eps=1e-5,
        max_seq_len=8192,
        sliding_window=129,
        local_layers=tuple(layer % 3 != 0 for layer in range(n_layer)),
        rope_local_theta=10_000.0,
    )


_LLAMA31: Final = RopeScaling("llama3", factor=8.0)


def _llama3(n_layer: int, n_embd: int, n_head: int, ffn_dim: int, *, long: bool = True) -> ModelShape:
    return ModelShape(
        "llama",
        n_layer,
        n_embd,
        n_head,
        8,
        128,
        ffn_dim,
        128256,
        rope_theta=500_000.0,
        norm_eps=1e-5,
        tie_embeddings=False,
        max_seq_len=131072 if long else 8192,
        rope_scaling=_LLAMA31 if long else None,
    )


def _qwen3(
    n_layer: int, n_embd: int, n_head: int, n_kv_head: int, ffn_dim: int, *, vocab: int = 151936, tied: bool = True
) -> ModelShape:
    return ModelShape(
        "qwen3",
        n_layer,
        n_embd,
        n_head,
        n_kv_head,
        128,
        ffn_dim,
        vocab,
        rope_theta=1_000_000.0,
        tie_embeddings=tied,
        max_seq_len=40960,
    )


_PHI_15: Final = ModelShape(
    "phi", 24, 2048, 32, 32, 64, 8192, 51200, 10_000.0, 1e-5, tie_embeddings=False, max_seq_len=2048, rotary_dim=32
)
_PHI_3_MINI: Final = ModelShape(
    "phi3",
    32,
    3072,
    32,
    32,
    96,
    8192,
    32064,
    10_000.0,
    1e-5,
    tie_embeddings=False,
    max_seq_len=4096,
    sliding_window=2047,
    local_layers=(True,) * 32,
)
_GEMMA_270M: Final = ModelShape(
    "gemma3",
    18,
    640,
    4,
    1,
    256,
    2048,
    262144,
    1_000_000.0,
    max_seq_len=32768,
    sliding_window=512,
    local_layers=tuple((layer + 1) % 6 != 0 for layer in range(18)),
    rope_local_theta=10_000.0,
)

_GPT2: Final = "Radford et al. 2019, table 2, and the released openai-community/gpt2* config.json"
_GPT3: Final = "Brown et al. 2020 (arXiv:2005.14165), table 2.1"
_DENSE: Final = "every layer dense here; the original alternates dense and banded sparse attention"
_MEGATRON: Final = "Korthikanti et al. 2022 (arXiv:2205.05198), table 3"
_PADDED: Final = "vocabulary padded to 51,200, as in the paper's runs"
_TURING: Final = "Microsoft Research blog, 10 February 2020: 78 layers, hidden size 4,256, 28 heads"
_BERT: Final = "Devlin et al. 2018 (arXiv:1810.04805), section 3, and google-bert/bert-*-uncased config.json"
_MLM: Final = "with the masked-language-model head and without the pooler"
_MODERN: Final = "Warner et al. 2024 (arXiv:2412.13663) and answerdotai/ModernBERT-* config.json"
_LLAMA: Final = "Llama team 2024 (arXiv:2407.21783), table 3, and the released config.json"
_QWEN: Final = "Qwen team 2025 (arXiv:2505.09388), table 1, and Qwen/Qwen3-* config.json"
_MAI: Final = (
    "our reading: no dimensions were published. The press said about 500 billion parameters; this is a dense model "
    "of Llama 3.1 405B's parts and proportions at that size"
)

_ROWS: Final[dict[str, Any]] = {
    "gpt2-124m": (_gpt(12, 768, 12, context=1024), 124e6, _GPT2),
    "gpt2-355m": (_gpt(24, 1024, 16, context=1024), 355e6, _GPT2),
    "gpt2-774m": (_gpt(36, 1280, 20, context=1024), 774e6, _GPT2),
    "gpt2-1558m": (_gpt(48, 1600, 25, context=1024), 1558e6, _GPT2),
    "gpt3-125m": (_gpt(12, 768, 12), 125e6, _GPT3, _DENSE),
    "gpt3-6.7b": (_gpt(32, 4096, 32), 6.7e9, _GPT3, _DENSE),
    "gpt3-13b": (_gpt(40, 5120, 40), 13e9, _GPT3, f"{_DENSE}; width 5,120, as 40 heads of 128 have (printed 5140)"),
    "gpt3-175b": (_gpt(96, 12288, 96), 175e9, _GPT3, _DENSE),
    "turing-nlg-17b": (_gpt(78, 4256, 28, context=1024), 17e9, _TURING, "vocabulary taken to be GPT-2's"),
    "megatron-22b": (_gpt(48, 6144, 64, vocab=51200), 22e9, _MEGATRON, _PADDED),
    "megatron-175b": (_gpt(96, 12288, 96, vocab=51200), 175e9, _MEGATRON, _PADDED),
    "megatron-530b": (_gpt(105, 20480, 128, vocab=51200), 530e9, _MEGATRON, _PADDED),
    "megatron-1t": (_gpt(128, 25600, 160, vocab=51200), 1e12, _MEGATRON, _PADDED),
    "bert-base": (_bert(12, 768, 12), 110e6, _BERT, _MLM),
    "bert-large": (_bert(24, 1024, 16), 340e6, _BERT, _MLM),
    "modernbert-base": (_modernbert(22, 768, 12, 1152), 149e6, _MODERN),
    "modernbert-large": (_modernbert(28, 1024, 16, 2624), 395e6, _MODERN),
    "phi-1.5": (_PHI_15, 1.3e9, "Li et al. 2023 (arXiv:2309.05463), section 2.1, and microsoft/phi-1_5 config.json"),
    "phi-3-mini": (_PHI_3_MINI, 3.8e9, "arXiv:2404.14219, section 2, and Phi-3-mini-4k-instruct's config.json"),
    "llama3-8b": (_llama3(32, 4096, 32, 14336, long=False), 8e9, _LLAMA),
    "llama3.1-8b": (_llama3(32, 4096, 32, 14336), 8e9, _LLAMA),
    "llama3-70b": (_llama3(80, 8192, 64, 28672), 70e9, _LLAMA, "3.1: context 131,072"),
    "llama3-405b": (_llama3(126, 16384, 128, 53248), 405e9, _LLAMA, "3.1: context 131,072"),
    "qwen3-0.6b": (_qwen3(28, 1024, 16, 8, 3072), 0.6e9, _QWEN),
    "qwen3-1.7b": (_qwen3(28, 2048, 16, 8, 6144), 1.7e9, _QWEN),
    "qwen3-8b": (_qwen3(36, 4096, 32, 8, 12288, tied=False), 8.2e9, _QWEN),
    "gemma3-270m": (_GEMMA_270M, 270e6, "google/gemma-3-270m config.json"),
    "mai-1-500b": (_llama3(120, 18432, 144, 61440), 500e9, "press reports of May 2024", _MAI),
}
NAMED_SHAPES: Final[Mapping[str, NamedShape]] = MappingProxyType(
    {name: NamedShape(*row) for name, row in _ROWS.items()}
)
"""Name → shape, published size, source."""
