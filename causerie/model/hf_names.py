"""Tensor names of each family in its Hugging Face folder, and which of its tensors are stored turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from causerie.model.shape import ModelShape

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Names:
    """How a family calls its tensors; the default is Llama's way, which is also ours."""

    layers: str = "model.layers"
    """Where the blocks are."""
    top: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """Our module outside the blocks → theirs; one not listed has `model.` before it."""
    block: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """Our module inside a block → theirs, where they differ."""
    turned: tuple[str, ...] = ()
    """Our modules whose matrices are stored (inputs, outputs)."""
    aliases: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """Tensors that some folders hold a second time → the first one's name; both must be equal."""
    unused: tuple[str, ...] = ()
    """Starts or ends of names of tensors that older folders hold and the model does not use; they are counted."""
    prefix: str = ""
    """Put before names that lack it (OpenAI's first GPT-2 folders)."""
    renamed: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """Ends of older names → today's."""


_LLAMA_TOP: Final = {"lm_head": "lm_head", "head_bias": "lm_head.bias"}
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")

NAMES: Final[Mapping[str, Names]] = MappingProxyType(
    {
        **dict.fromkeys(("qwen3", "llama", "qwen2", "gemma3", "phi3"), Names(top=_LLAMA_TOP)),
        "phi": Names(
            top={**_LLAMA_TOP, "norm": "model.final_layernorm"},
            block={"self_attn.o_proj": "self_attn.dense", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"},
        ),
        "gpt2": Names(
            layers="transformer.h",
            top={
                "embed_tokens": "transformer.wte",
                "embed_positions": "transformer.wpe",
                "norm": "transformer.ln_f",
                "lm_head": "lm_head",
            },
            block={
                "self_attn.qkv_proj": "attn.c_attn",
                "self_attn.o_proj": "attn.c_proj",
                "mlp.up_proj": "mlp.c_fc",
                "mlp.down_proj": "mlp.c_proj",
                "input_layernorm": "ln_1",
                "post_attention_layernorm": "ln_2",
            },
            turned=("self_attn.qkv_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"),
            unused=(".attn.bias", ".attn.masked_bias"),
            prefix="transformer.",
        ),
        "bert": Names(
            layers="bert.encoder.layer",
            top={
                "embed_tokens": "bert.embeddings.word_embeddings",
                "embed_positions": "bert.embeddings.position_embeddings",
                "embed_types": "bert.embeddings.token_type_embeddings",
                "embed_norm": "bert.embeddings.LayerNorm",
                "head.dense": "cls.predictions.transform.dense",
                "head.norm": "cls.predictions.transform.LayerNorm",
                "lm_head": "cls.predictions.decoder",
                "head_bias": "cls.predictions.bias",
            },
            block={
                "self_attn.q_proj": "attention.self.query",
                "self_attn.k_proj": "attention.self.key",
                "self_attn.v_proj": "attention.self.value",
                "self_attn.o_proj": "attention.output.dense",
                "post_attention_layernorm": "attention.output.LayerNorm",
                "mlp.up_proj": "intermediate.dense",
                "mlp.down_proj": "output.dense",
                "post_feedforward_layernorm": "output.LayerNorm",
            },
            aliases={"cls.predictions.decoder.bias": "cls.predictions.bias"},
            unused=("bert.pooler.", "cls.seq_relationship.", "bert.embeddings.position_ids"),
            renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
        ),
        "modernbert": Names(
            top={
                "embed_tokens": "model.embeddings.tok_embeddings",
                "embed_norm": "model.embeddings.norm",
                "norm": "model.final_norm",
                "head.dense": "head.dense",
                "head.norm": "head.norm",
                "lm_head": "decoder",
                "head_bias": "decoder.bias",
            },
            block={
                "self_attn.qkv_proj": "attn.Wqkv",
                "self_attn.o_proj": "attn.Wo",
                "mlp.gate_up_proj": "mlp.Wi",
                "mlp.down_proj": "mlp.Wo",
                "input_layernorm": "attn_norm",
                "post_attention_layernorm": "mlp_norm",
            },
        ),
    }
)
"""Family → its names."""


def hf_module(family: str, module: str) -> str:
    """Our module's name as the family's Hugging Face folder has it."""
    names = NAMES[family]
    if module.startswith("layers."):
        _, layer, inner = module.split(".", 2)
        return f"{names.layers}.{layer}.{names.block.get(inner, inner)}"
    return names.top.get(module, f"model.{module}")


def hf_name(family: str, name: str) -> str:
    """Our parameter's name (`layers.0.mlp.up_proj.weight`) as the family's Hugging Face folder has it."""
    if name == "head_bias":
        return hf_module(family, name)
    module, _, kind = name.rpartition(".")
    return f"{hf_module(family, module)}.{kind}"


def is_turned(family: str, name: str) -> bool:
    """Whether the folder stores our parameter `name` transposed."""
    return name.endswith(tuple(f".{module}.weight" for module in NAMES[family].turned))


def todays_name(family: str, name: str) -> str:
    """A stored tensor's name as today's transformers writes it."""
    names = NAMES[family]
    for old, new in names.renamed.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name if not names.prefix or name.startswith((names.prefix, "lm_head.")) else names.prefix + name


def is_unused(family: str, name: str) -> bool:
    """Whether a stored tensor (today's name) is one that the model does not use."""
    return any(name.startswith(part) or name.endswith(part) for part in NAMES[family].unused)


def tied_name(shape: ModelShape) -> str | None:
    """The output projection's name where it is the embedding; folders may hold it a second time."""
    return hf_name(shape.family, "lm_head.weight") if shape.tie_embeddings else None
