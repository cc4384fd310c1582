"""A model into a GGUF file, for llama.cpp and what is built on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from causerie.core import CauserieError
from causerie.model.fold import fold_extras
from causerie.model.gguf_names import ARCHITECTURES, ROPE_FACTORS, gguf_name, interleaved_heads
from causerie.model.gguf_tokenizer import tokenizer_metadata
from causerie.model.gguf_write import F16, F32, Q8_0, TensorOut, write_gguf
from causerie.model.lora import lora_parameters
from causerie.model.parts import stretch
from causerie.model.quants import ENCODINGS
from causerie.model.shape import ModelShape, RopeScaling
from causerie.model.transformer import Transformer

GgufType = Literal["f32", "f16", "q8_0"]
_TYPES: Final = {"f32": (F32, 0), "f16": (F16, 1), "q8_0": (Q8_0, 7)}
"""Name → (encoding of matrices, ggml's number of the file type)."""
_FOLDER: Final = "export it as a Hugging Face folder"
GEMMA3_PATTERN: Final = 6
"""Every sixth layer of Gemma 3 is global (arXiv:2503.19786, section 2); llama.cpp has no key for it."""
GEMMA3_LOCAL_THETA: Final = 10_000.0
"""Rotary base of Gemma 3's local layers (same source)."""


def save_gguf(
    model: Transformer,
    path: Path,
    tokenizer_from: Path | None,
    *,
    dtype: GgufType = "f16",
    name: str = "causerie",
    on_tensor: Callable[[str], None] | None = None,
) -> str:
    """Write a model as a GGUF file that llama.cpp runs.

    Args:
        model: a decoder without adapters, or with merged ones; training-only parts are folded first.
        path: the file; its folder exists.
        tokenizer_from: folder with tokenizer.json; None writes no vocabulary.
        dtype: of the matrices; norms, biases and positions are float32 always, and a matrix whose rows are not whole
            blocks of 32 is float16 in a q8_0 file.
        name: `general.name`.
        on_tensor: called with each tensor's name when it is written.

    Returns:
        A sentence on what differs in llama.cpp; empty when nothing does.

    Raises:
        CauserieError: CAU-3010 when llama.cpp has no such model.
    """
    if adapted := sorted(lora_parameters(model)):
        raise _cannot(f"not a plain model: {adapted[0]}", "merge the adapter first (merge_lora)")
    model = fold_extras(model)
    shape = model.shape
    check_gguf(shape)
    encoding, file_type = _TYPES[dtype]
    words, said = tokenizer_metadata(tokenizer_from, shape.vocab_size) if tokenizer_from else ({}, "")
    if (reach := _context(shape)) < shape.max_seq_len:
        said = "; ".join(filter(None, (said, f"llama.cpp has no local layers here: its context is cut to {reach:,}")))
    metadata = {
        "general.architecture": ARCHITECTURES[shape.family],
        "general.name": name,
        "general.file_type": file_type,
        "general.quantization_version": 2,
        **_sizes(shape),
        **(words or {"tokenizer.ggml.model": "none"}),
    }
    tensors = [_tensor(shape, key, tensor, encoding, on_tensor) for key, tensor in model.state_dict().items()]
    if shape.rope_scaling is not None and shape.rope_scaling.kind == "llama3":
        factors = rope_factors(shape.rope_theta, shape.rotary_dim or shape.head_dim, shape.rope_scaling)
        tensors.append(TensorOut(ROPE_FACTORS, factors.shape, F32, lambda: factors))
    write_gguf(path, metadata, tensors)
    return said


def check_gguf(shape: ModelShape) -> None:
    """Refuse a shape that llama.cpp does not have, or would compute otherwise without a word.

    Raises:
        CauserieError: CAU-3010.
    """
    family = shape.family
    if family not in ARCHITECTURES:
        raise _cannot(f"llama.cpp has no {shape.row.architecture} with its head", _FOLDER)
    scaling = shape.rope_scaling
    if scaling is not None and scaling.kind == "llama3" and family != "llama":
        raise _cannot(
            f"llama.cpp stretches rotations so only in llama, not in {family}", "export a Hugging Face folder"
        )
    usual = tuple((layer + 1) % GEMMA3_PATTERN != 0 for layer in range(shape.n_layer))
    if family == "gemma3":
        theta = shape.rope_local_theta or shape.rope_theta
        if (
            shape.local_layers != usual
            or theta != GEMMA3_LOCAL_THETA
            or not math.isclose(shape.scale, shape.head_dim**-0.5)
        ):
            cause = "llama.cpp fixes Gemma 3's pattern of local layers (5:1), their rotary base (10,000) and its scale"
            raise _cannot(cause, _FOLDER)


def _context(shape: ModelShape) -> int:
    """Tokens for which llama.cpp computes the same: it knows local layers of Gemma 3 only."""
    windowed = any(shape.local_layers) and shape.family != "gemma3"
    return min(shape.max_seq_len, shape.sliding_window) if windowed else shape.max_seq_len


def _sizes(shape: ModelShape) -> dict[str, Any]:
    arch = ARCHITECTURES[shape.family]
    epsilon = "layer_norm_rms_epsilon" if shape.row.norm == "rms" else "layer_norm_epsilon"
    sizes: dict[str, Any] = {
        "context_length": _context(shape),
        "embedding_length": shape.n_embd,
        "block_count": shape.n_layer,
        "feed_forward_length": shape.ffn_dim,
        "vocab_size": shape.vocab_size,
        "attention.head_count": shape.n_head,
        "attention.head_count_kv": shape.n_kv_head,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        f"attention.{epsilon}": shape.norm_eps,
    }
    if shape.row.rotary:
        sizes |= {"rope.freq_base": shape.rope_theta, "rope.dimension_count": shape.rotary_dim or shape.head_dim}
    if shape.family == "gemma3":
        sizes["attention.sliding_window"] = shape.sliding_window
    if shape.rope_scaling is not None:
        linear = shape.rope_scaling.kind == "linear"
        sizes |= (
            {"rope.scaling.type": "linear", "rope.scaling.factor": shape.rope_scaling.factor}
            if linear
            else {"rope.scaling.original_context_length": shape.rope_scaling.original_max_seq_len}
        )
    return {f"{arch}.{key}": value for key, value in sizes.items()}


def rope_factors(theta: float, dim: int, scaling: RopeScaling) -> np.ndarray[Any, np.dtype[np.float32]]:
    """By what each of the dim/2 rotary frequencies of base `theta` is divided, float32."""
    plain = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return (plain / stretch(plain, scaling)).numpy()


def _tensor(
    shape: ModelShape, name: str, tensor: Tensor, encoding: int, on_tensor: Callable[[str], None] | None
) -> TensorOut:
    offset = shape.row.norm_offset if "norm" in name else 0.0
    heads = interleaved_heads(shape, name)
    if tensor.ndim == 1 or name == "embed_positions.weight":
        encoding = F32
    elif encoding == Q8_0 and tensor.shape[-1] % ENCODINGS[Q8_0].values:
        encoding = F16

    def values() -> np.ndarray[Any, np.dtype[np.float32]]:
        wide = tensor.detach().to("cpu", torch.float32) + offset
        if heads:
            wide = wide.view(heads, 2, -1, wide.shape[-1]).transpose(1, 2).reshape(wide.shape)
        if on_tensor:
            on_tensor(name)
        return wide.contiguous().numpy()

    return TensorOut(gguf_name(shape, name), tuple(tensor.shape), encoding, values)


def _cannot(cause: str, fix: str) -> CauserieError:
    return CauserieError("CAU-3010", cause, where="gguf", fix=fix)
