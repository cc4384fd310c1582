"""The table of model families: everything in which they differ, apart from sizes.

Adding a family is adding a row here (and its tensor and config names in `hf_names` and `hf_config`); code asks the
row, never the family's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Activation = Literal["silu", "gelu", "gelu_tanh"]
NormPlace = Literal["pre", "post", "sandwich", "parallel"]


@dataclass(frozen=True)
class Family:
    """One row of the family table. The defaults are those of today's decoders: Llama's parts."""

    model_type: str
    """`model_type` in a Hugging Face config.json."""
    architecture: str
    """The transformers class that loads an exported folder."""
    activation: Activation = "silu"
    """Of the MLP: on its gate (SwiGLU, GeGLU), or on its only branch where there is no gate."""
    causal: bool = True
    """Decoder; False is an encoder, in which every token sees every other."""
    gated: bool = True
    """MLP with a gate; False is the older up, activation, down."""
    rotary: bool = True
    """Rotary positions; False is a learned table of `max_seq_len` positions."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm, or LayerNorm."""
    norm_bias: bool = False
    """Bias in LayerNorms."""
    norm_offset: float = 0.0
    """RMSNorm multiplies by (offset + weight): 0 for most, 1 for Gemma, whose weights are stored around zero."""
    norm_place: NormPlace = "pre"
    """Before attention and MLP ("pre"); after their sum with the residual ("post", BERT); before and after
    ("sandwich", Gemma 2 and 3); one norm before both, which run side by side ("parallel", Phi)."""
    first_norm: bool = True
    """Whether the first layer has a norm before attention (ModernBERT's has none)."""
    final_norm: bool = True
    """Norm after the last layer."""
    embed_norm: bool = False
    """Norm right after the embeddings."""
    scale_embedding: bool = False
    """Embeddings are multiplied by the square root of the width on their way in (Gemma)."""
    token_types: int = 0
    """Rows of a token-type embedding (BERT's two segments)."""
    qk_norm: bool = False
    """RMSNorm over each query and key head before the rotation."""
    qkv_bias: bool = False
    """Bias on the query, key and value projections."""
    o_bias: bool = False
    """Bias on attention's output projection."""
    mlp_bias: bool = False
    """Bias on the MLP's projections."""
    fused_qkv: bool = False
    """Queries, keys and values from one matrix."""
    fused_gate_up: bool = False
    """Gate and up projection in one matrix."""
    prediction_head: bool = False
    """Dense, activation and norm before the output projection (masked language models)."""
    prediction_bias: bool = False
    """Bias on that dense layer."""
    head_bias: bool = False
    """Bias on the output projection."""


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "qwen3": Family("qwen3", "Qwen3ForCausalLM", qk_norm=True),
        "llama": Family("llama", "LlamaForCausalLM"),
        "qwen2": Family("qwen2", "Qwen2ForCausalLM", qkv_bias=True),
        "gemma3": Family(
            "gemma3_text",
            "Gemma3ForCausalLM",
            "gelu_tanh",
            norm_offset=1.0,
            norm_place="sandwich",
            scale_embedding=True,
            qk_norm=True,
        ),
        "phi3": Family("phi3", "Phi3ForCausalLM", fused_qkv=True, fused_gate_up=True),
        "phi": Family(
            "phi",
            "PhiForCausalLM",
            "gelu_tanh",
            gated=False,
            norm="layer",
            norm_bias=True,
            norm_place="parallel",
            qkv_bias=True,
            o_bias=True,
            mlp_bias=True,
            head_bias=True,
        ),
        "gpt2": Family(
            "gpt2",
            "GPT2LMHeadModel",
            "gelu_tanh",
            gated=False,
            rotary=False,
            norm="layer",
            norm_bias=True,
            qkv_bias=True,
            o_bias=True,
            mlp_bias=True,
            fused_qkv=True,
        ),
        "bert": Family(
            "bert",
            "BertForMaskedLM",
            "gelu",
            causal=False,
            gated=False,
            rotary=False,
            norm="layer",
            norm_bias=True,
            norm_place="post",
            final_norm=False,
            embed_norm=True,
            token_types=2,
            qkv_bias=True,
            o_bias=True,
            mlp_bias=True,
            prediction_head=True,
            prediction_bias=True,
            head_bias=True,
        ),
        "modernbert": Family(
            "modernbert",
            "ModernBertForMaskedLM",
            "gelu",
            causal=False,
            norm="layer",
            first_norm=False,
            embed_norm=True,
            fused_qkv=True,
            fused_gate_up=True,
            prediction_head=True,
            head_bias=True,
        ),
    }
)
"""Family name → its row."""
