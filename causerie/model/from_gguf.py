"""A model out of a GGUF file: the shape from its metadata, the weights dequantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from causerie.core import CauserieError
from causerie.model.families import FAMILIES
from causerie.model.gguf import Gguf, open_gguf
from causerie.model.gguf_names import ARCHITECTURES, ROPE_FACTORS, gguf_name, interleaved_heads
from causerie.model.shape import DEFAULT_THETA, ModelShape, RopeScaling
from causerie.model.to_gguf import GEMMA3_LOCAL_THETA, GEMMA3_PATTERN, rope_factors
from causerie.model.transformer import Transformer

ROWS_AT_ONCE: Final = 1 << 14
LLAMA3_CONTEXT: Final = 8192
"""Context of Llama 3's first training; where a GGUF file names none, only the divisors."""


def shape_from_gguf(gguf: Gguf) -> ModelShape:
    """The shape that a GGUF file's metadata describes.

    Raises:
        CauserieError: CAU-3007 when the family is not known here or a size is missing.
    """
    arch = str(gguf.metadata.get("general.architecture"))
    family = next((ours for ours, theirs in ARCHITECTURES.items() if theirs == arch), "")
    if not family:
        raise _cannot(gguf, f"the model is a {arch!r}; known: {', '.join(ARCHITECTURES.values())}")

    def read(name: str, kind: type, default: Any = None) -> Any:
        value = gguf.metadata.get(f"{arch}.{name}", default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _cannot(gguf, f"{arch}.{name} is {value!r}")
        return kind(value)

    if "token_embd.weight" not in gguf.tensors or len(gguf.tensors["token_embd.weight"].shape) != 2:
        raise _cannot(gguf, "there is no embedding")
    n_layer, n_embd, n_head = (read(name, int) for name in ("block_count", "embedding_length", "attention.head_count"))
    row = FAMILIES[family]
    head_dim = read("attention.key_length", int, n_embd // max(n_head, 1))
    rotary_dim = read("rope.dimension_count", int, head_dim) if row.rotary else head_dim
    gemma, epsilon = family == "gemma3", "layer_norm_rms_epsilon" if row.norm == "rms" else "layer_norm_epsilon"
    windowed = gemma or (family == "phi3" and f"{arch}.attention.sliding_window" in gguf.metadata)
    every = GEMMA3_PATTERN if gemma else 1 << 16
    layers = range(min(n_layer, 1024))
    theta = read("rope.freq_base", float, 10_000.0 if row.rotary else DEFAULT_THETA)
    return ModelShape(
        family=family,
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_kv_head=read("attention.head_count_kv", int, n_head),
        head_dim=head_dim,
        ffn_dim=read("feed_forward_length", int),
        vocab_size=gguf.tensors["token_embd.weight"].shape[0],
        rope_theta=theta,
        norm_eps=round(read(f"attention.{epsilon}", float, 1e-6), 12),
        tie_embeddings="output.weight" not in gguf.tensors,
        max_seq_len=read("context_length", int, 32768),
        sliding_window=read("attention.sliding_window", int) if windowed else 0,
        local_layers=tuple((layer + 1) % every != 0 for layer in layers) if windowed else (),
        rope_local_theta=read("rope.freq_base_swa", float, GEMMA3_LOCAL_THETA) if gemma else 0.0,
        rotary_dim=rotary_dim if rotary_dim != head_dim else 0,
        rope_scaling=_scaling(gguf, arch, read, theta, rotary_dim),
    )


def _scaling(gguf: Gguf, arch: str, read: Callable[..., Any], theta: float, dim: int) -> RopeScaling | None:
    """Stretching of the rotation: linear by its keys, Llama 3's by its table of divisors."""
    kind = gguf.metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind == "linear":
        return RopeScaling("linear", read("rope.scaling.factor", float))
    if kind != "none" or "rope_factors_long.weight" in gguf.tensors:
        raise _cannot(gguf, f"rotary scaling {kind if kind != 'none' else 'longrope'!r} is not supported")
    if ROPE_FACTORS not in gguf.tensors:
        return None
    found = gguf.tensor(ROPE_FACTORS)
    original = read("rope.scaling.original_context_length", int, LLAMA3_CONTEXT)
    scaling = RopeScaling("llama3", factor=float(found.max()), original_max_seq_len=original)
    if found.shape != (dim // 2,) or not np.allclose(rope_factors(theta, dim, scaling), found, rtol=1e-4):
        raise _cannot(gguf, f"{ROPE_FACTORS} holds other divisors than Llama 3's")
    return scaling


def load_gguf(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    keep: Sequence[int] | None = None,
    on_tensor: Callable[[str], None] | None = None,
) -> Transformer:
    """Load a GGUF model, its quantised weights turned into plain ones.

    Args:
        path: a GGUF file of a family in the table.
        dtype: of all weights.
        keep: token ids whose embedding rows are kept, in their new order; None keeps all.
        on_tensor: called with each tensor's name when it is done.

    Raises:
        CauserieError: CAU-3004, CAU-3006 or CAU-3007.
    """
    gguf = open_gguf(path)
    shape = shape_from_gguf(gguf)
    if keep is not None:
        shape = ModelShape(**{**vars(shape), "vocab_size": len(keep)})
    with torch.device("meta"):
        model = Transformer(shape)
    state = {}
    for ours, wanted in model.state_dict().items():
        theirs = gguf_name(shape, ours)
        rows = keep if ours in ("embed_tokens.weight", "lm_head.weight", "head_bias") else None
        tensor = _read(gguf, theirs, dtype, rows, shape.row.norm_offset if "norm" in ours else 0.0)
        if tensor.shape != wanted.shape:
            raise _cannot(gguf, f"{theirs} is {tuple(tensor.shape)} where {tuple(wanted.shape)} was expected")
        if heads := interleaved_heads(shape, ours):
            tensor = tensor.view(heads, -1, 2, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)
        state[ours] = tensor
        if on_tensor:
            on_tensor(theirs)
    model.load_state_dict(state, assign=True)
    return model


def _read(gguf: Gguf, name: str, dtype: torch.dtype, keep: Sequence[int] | None, offset: float) -> torch.Tensor:
    """A tensor in its final dtype, dequantised some rows at a time; GGUF stores norms with the offset added."""
    entry = gguf.tensors.get(name)
    if entry is None or len(entry.shape) == 1:
        flat = torch.from_numpy(gguf.tensor(name) - np.float32(offset)).to(dtype)
        return flat if keep is None else flat[torch.as_tensor(keep)]
    kept = None if keep is None else np.asarray(keep)
    if kept is not None and (kept.min() < 0 or kept.max() >= entry.shape[0]):
        raise _cannot(gguf, f"{name} has {entry.shape[0]} rows, fewer than the kept token ids ask for")
    out = torch.empty((entry.shape[0] if kept is None else len(kept), *entry.shape[1:]), dtype=dtype)
    for start in range(0, entry.shape[0], ROWS_AT_ONCE):
        part = torch.from_numpy(gguf.tensor(name, start, start + ROWS_AT_ONCE)).to(dtype)
        if kept is None:
            out[start : start + len(part)] = part
        else:
            at = np.flatnonzero((kept >= start) & (kept < start + len(part)))
            out[torch.from_numpy(at)] = part[torch.from_numpy(kept[at] - start)]
    return out


def _cannot(gguf: Gguf, cause: str) -> CauserieError:
    return CauserieError("CAU-3007", cause, where=str(gguf.path), fix="use a GGUF file of a supported model")
