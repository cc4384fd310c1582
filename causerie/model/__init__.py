"""The transformer: shapes, parts, attention, losses, Hugging Face folders, GGUF files. Torch loads on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.model.families import FAMILIES, Family
from causerie.model.shape import ModelShape, RopeScaling, encoder_of, shape_from_depth
from causerie.model.shapes import NAMED_SHAPES, NamedShape, named_shape

if TYPE_CHECKING:
    from causerie.model.adapters import base_folder, load_adapter, save_adapter
    from causerie.model.attend import (
        Attend,
        SequenceAttend,
        causal_attend,
        encoder_attend,
        plain_attend,
    )
    from causerie.model.companions import NOTICE_FILES, TOKENIZER_FILES, copy_companions
    from causerie.model.fold import QK_GAIN, add_extras, empty_like, fold_extras
    from causerie.model.from_gguf import load_gguf, shape_from_gguf
    from causerie.model.gguf import Gguf, open_gguf
    from causerie.model.hf import check_model, load_model, save_model
    from causerie.model.hf_config import shape_from_hf, shape_to_hf
    from causerie.model.lora import add_lora, lora_parameters, lora_targets, merge_lora
    from causerie.model.loss import chunked_loss, summed_loss, token_log_probs
    from causerie.model.parts import MLP, Attention, RMSNorm, activate, rotate, rotation
    from causerie.model.pooling import embed_rows, pool_hidden
    from causerie.model.products import fastest_product
    from causerie.model.tensor_files import save_tensors
    from causerie.model.to_gguf import check_gguf, save_gguf
    from causerie.model.transformer import Transformer, init_model

__all__ = [
    "FAMILIES",
    "MLP",
    "NAMED_SHAPES",
    "NOTICE_FILES",
    "QK_GAIN",
    "TOKENIZER_FILES",
    "Attend",
    "Attention",
    "Family",
    "Gguf",
    "ModelShape",
    "NamedShape",
    "RMSNorm",
    "RopeScaling",
    "SequenceAttend",
    "Transformer",
    "activate",
    "add_extras",
    "add_lora",
    "base_folder",
    "causal_attend",
    "check_gguf",
    "check_model",
    "chunked_loss",
    "copy_companions",
    "embed_rows",
    "empty_like",
    "encoder_attend",
    "encoder_of",
    "fastest_product",
    "fold_extras",
    "init_model",
    "load_adapter",
    "load_gguf",
    "load_model",
    "lora_parameters",
    "lora_targets",
    "merge_lora",
    "named_shape",
    "open_gguf",
    "plain_attend",
    "pool_hidden",
    "rotate",
    "rotation",
    "save_adapter",
    "save_gguf",
    "save_model",
    "save_tensors",
    "shape_from_depth",
    "shape_from_gguf",
    "shape_from_hf",
    "shape_to_hf",
    "summed_loss",
    "token_log_probs",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("base_folder", "load_adapter", "save_adapter"), "adapters"),
        **dict.fromkeys(("Attend", "SequenceAttend", "causal_attend", "encoder_attend", "plain_attend"), "attend"),
        **dict.fromkeys(("NOTICE_FILES", "TOKENIZER_FILES", "copy_companions"), "companions"),
        **dict.fromkeys(("QK_GAIN", "add_extras", "empty_like", "fold_extras"), "fold"),
        **dict.fromkeys(("load_gguf", "shape_from_gguf"), "from_gguf"),
        **dict.fromkeys(("Gguf", "open_gguf"), "gguf"),
        **dict.fromkeys(("check_model", "load_model", "save_model"), "hf"),
        **dict.fromkeys(("shape_from_hf", "shape_to_hf"), "hf_config"),
        **dict.fromkeys(("add_lora", "lora_parameters", "lora_targets", "merge_lora"), "lora"),
        **dict.fromkeys(("chunked_loss", "summed_loss", "token_log_probs"), "loss"),
        **dict.fromkeys(("MLP", "Attention", "RMSNorm", "activate", "rotate", "rotation"), "parts"),
        **dict.fromkeys(("embed_rows", "pool_hidden"), "pooling"),
        "fastest_product": "products",
        **dict.fromkeys(("check_gguf", "save_gguf"), "to_gguf"),
        "save_tensors": "tensor_files",
        **dict.fromkeys(("Transformer", "init_model"), "transformer"),
    },
)
