"""Small random transformers models of every family, to hold ours against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from causerie.model import Transformer

VOCABULARY = 97
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDE: dict[str, Any] = {
    **IDS,
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "num_hidden_layers": 3,
}
GROUPED = {**WIDE, "num_key_value_heads": 2}
GPT2: dict[str, Any] = {**IDS, "vocab_size": VOCABULARY, "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 700.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
BERT_IDS = {"cls_token_id": 1, "sep_token_id": 2}


@dataclass(frozen=True)
class Reference:
    """A config class of transformers, its model class, and the config's values."""

    config: str
    model: str
    values: dict[str, Any]


REFERENCES: dict[str, Reference] = {
    "qwen3": Reference(
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {**GROUPED, "head_dim": 16, "rope_theta": 5000.0, "tie_word_embeddings": False},
    ),
    "qwen3-tied": Reference(
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {**GROUPED, "head_dim": 16, "rope_theta": 1e6, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    ),
    "qwen3-windows": Reference(
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {**GROUPED, "head_dim": 16, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "llama": Reference("LlamaConfig", "LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": False}),
    "llama-3.1": Reference(
        "LlamaConfig", "LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": True, "rope_parameters": LLAMA3}
    ),
    "llama-linear": Reference(
        "LlamaConfig",
        "LlamaForCausalLM",
        {**GROUPED, "rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 2.5}},
    ),
    "qwen2": Reference("Qwen2Config", "Qwen2ForCausalLM", GROUPED),
    "qwen2-windows": Reference(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        {**GROUPED, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
    ),
    "gemma3": Reference(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            **GROUPED,
            "num_hidden_layers": 7,
            "head_dim": 16,
            "sliding_window": 5,
            "query_pre_attn_scalar": 20,
            "rope_theta": 30000.0,
        },
    ),
    "gemma3-usual": Reference(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**GROUPED, "num_hidden_layers": 7, "head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 16},
    ),
    "phi3": Reference("Phi3Config", "Phi3ForCausalLM", {**GROUPED, "sliding_window": None}),
    "phi3-windows": Reference(
        "Phi3Config", "Phi3ForCausalLM", {**WIDE, "sliding_window": 6, "partial_rotary_factor": 0.75}
    ),
    "phi": Reference("PhiConfig", "PhiForCausalLM", WIDE),
    "gpt2": Reference("GPT2Config", "GPT2LMHeadModel", GPT2),
    "gpt2-inner": Reference("GPT2Config", "GPT2LMHeadModel", {**GPT2, "n_inner": 96}),
    "bert": Reference("BertConfig", "BertForMaskedLM", WIDE),
    "modernbert": Reference(
        "ModernBertConfig",
        "ModernBertForMaskedLM",
        {**WIDE, **BERT_IDS, "num_hidden_layers": 5, "local_attention": 8, "global_attn_every_n_layers": 3},
    ),
}
"""Name → reference; at least one of every family in our table."""
DECODERS = [name for name in REFERENCES if "bert" not in name]
ENCODERS = [name for name in REFERENCES if "bert" in name]


def reference(name: str, seed: int = 7) -> Any:
    """The random model, with norms and biases that are not at their start values; it attends without dropout."""
    import transformers

    one = REFERENCES[name]
    torch.manual_seed(seed)
    model = getattr(transformers, one.model)(getattr(transformers, one.config)(**one.values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.1))
    return model


def saved_reference(name: str, folder: Path, seed: int = 7) -> Any:
    """The model, saved to `folder` by transformers."""
    model = reference(name, seed)
    model.save_pretrained(folder)
    return model


def tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random ids, (rows, length), none of them special."""
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


class Pieces:
    """An `Attend` with a cache that is fed pieces of any length."""

    def __init__(self, model: Transformer) -> None:
        self.shape = model.shape
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Causal over what was kept and what is new, within the layer's window."""
        if layer in self.kept:
            k, v = (torch.cat((old, new), 2) for old, new in zip(self.kept[layer], (k, v), strict=True))
        self.kept[layer] = (k, v)
        back = torch.arange(k.shape[2])[None] - torch.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None]
        seen = back <= 0
        if window := self.shape.window(layer):
            seen &= back > -window
        return F.scaled_dot_product_attention(q, k, v, seen, scale=self.shape.scale, enable_gqa=True)
