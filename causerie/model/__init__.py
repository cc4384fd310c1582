"""The transformer: shapes, parts, attention, losses, Hugging Face folders, GGUF files. Torch loads on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.model.shape import FAMILIES, Family, ModelShape, shape_from_depth

if TYPE_CHECKING:
    from causerie.model.attend import Attend, CausalAttend, causal_attend
    from causerie.model.from_gguf import load_gguf, shape_from_gguf
    from causerie.model.gguf import Gguf, open_gguf
    from causerie.model.hf import NOTICE_FILES, TOKENIZER_FILES, base_folder, copy_companions, load_model, save_model
    from causerie.model.hf_config import shape_from_hf, shape_to_hf
    from causerie.model.lora import add_lora, load_adapter, lora_parameters, merge_lora, save_adapter
    from causerie.model.loss import chunked_loss, token_log_probs
    from causerie.model.transformer import Transformer, init_model

__all__ = [
    "FAMILIES",
    "NOTICE_FILES",
    "TOKENIZER_FILES",
    "Attend",
    "CausalAttend",
    "Family",
    "Gguf",
    "ModelShape",
    "Transformer",
    "add_lora",
    "base_folder",
    "causal_attend",
    "chunked_loss",
    "copy_companions",
    "init_model",
    "load_adapter",
    "load_gguf",
    "load_model",
    "lora_parameters",
    "merge_lora",
    "open_gguf",
    "save_adapter",
    "save_model",
    "shape_from_depth",
    "shape_from_gguf",
    "shape_from_hf",
    "shape_to_hf",
    "token_log_probs",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Attend", "CausalAttend", "causal_attend"), "attend"),
        **dict.fromkeys(("load_gguf", "shape_from_gguf"), "from_gguf"),
        **dict.fromkeys(("Gguf", "open_gguf"), "gguf"),
        **dict.fromkeys(
            ("NOTICE_FILES", "TOKENIZER_FILES", "base_folder", "copy_companions", "load_model", "save_model"), "hf"
        ),
        **dict.fromkeys(("shape_from_hf", "shape_to_hf"), "hf_config"),
        **dict.fromkeys(("add_lora", "load_adapter", "lora_parameters", "merge_lora", "save_adapter"), "lora"),
        **dict.fromkeys(("chunked_loss", "token_log_probs"), "loss"),
        **dict.fromkeys(("Transformer", "init_model"), "transformer"),
    },
)
