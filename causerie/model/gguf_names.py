"""What GGUF calls the families, their tensors and their sizes; shared by reading and writing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from causerie.model.shape import ModelShape

ARCHITECTURES: Final[Mapping[str, str]] = MappingProxyType(
    {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3", "phi3": "phi3", "phi": "phi2"}
    | {"gpt2": "gpt2"}
)
"""Family → `general.architecture`; llama.cpp generates with these. Encoders are not among them: it has no MLM head."""

_MODULES: Final = MappingProxyType(
    {
        "input_layernorm": "attn_norm",
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
    }
)
"""Our module in a block → GGUF's name."""
_SANDWICH: Final = MappingProxyType(
    {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    }
)
_TOP: Final = MappingProxyType(
    {
        "embed_tokens.weight": "token_embd.weight",
        "embed_positions.weight": "position_embd.weight",
        "norm.weight": "output_norm.weight",
        "norm.bias": "output_norm.bias",
        "lm_head.weight": "output.weight",
        "head_bias": "output.bias",
    }
)
ROPE_FACTORS: Final = "rope_freqs.weight"
"""Divisors of the rotary frequencies, (rotary dim / 2,), where they are stretched unevenly."""


def gguf_name(shape: ModelShape, name: str) -> str:
    """Our parameter's name as GGUF has it."""
    if not name.startswith("layers."):
        return _TOP[name]
    _, layer, inner = name.split(".", 2)
    module, _, kind = inner.rpartition(".")
    modules = {**_MODULES, **_SANDWICH} if shape.row.norm_place == "sandwich" else _MODULES
    return f"blk.{layer}.{modules[module]}.{kind}"


def interleaved_heads(shape: ModelShape, name: str) -> int:
    """Heads of a matrix whose rows GGUF keeps in pairs (Llama's queries and keys); 0 for every other tensor."""
    if shape.family != "llama":
        return 0
    if name.endswith("q_proj.weight"):
        return shape.n_head
    return shape.n_kv_head if name.endswith("k_proj.weight") else 0
