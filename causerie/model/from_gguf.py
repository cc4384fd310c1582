"""A model out of a GGUF file: the shape from its metadata, the weights dequantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from causerie.core import CauserieError
from causerie.model.gguf import Gguf, open_gguf
from causerie.model.shape import FAMILIES, ModelShape
from causerie.model.transformer import Transformer

ROWS_AT_ONCE: Final = 1 << 14
_BLOCK: Final = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
"""GGUF's name of a block's tensor → ours."""
_PRE_NORM: Final = MappingProxyType({"ffn_norm": "post_attention_layernorm"})
_SANDWICH: Final = MappingProxyType(
    {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
)
GEMMA3_LOCAL_THETA: Final = 10_000.0
"""Rotary base of Gemma 3's local layers (arXiv:2503.19786, section 2), where the file names none."""
GEMMA3_PATTERN: Final = 6
"""Every sixth layer of Gemma 3 is global (same source)."""


def shape_from_gguf(gguf: Gguf) -> ModelShape:
    """The shape that a GGUF file's metadata describes.

    Raises:
        CauserieError: CAU-3007 when the family is not known here or a size is missing.
    """
    family = str(gguf.metadata.get("general.architecture"))
    if family not in FAMILIES:
        raise _cannot(gguf, f"the model is a {family!r}; known: {', '.join(FAMILIES)}")

    def read(name: str, kind: type, default: Any = None) -> Any:
        value = gguf.metadata.get(f"{family}.{name}", default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _cannot(gguf, f"{family}.{name} is {value!r}")
        return kind(value)

    if "token_embd.weight" not in gguf.tensors or len(gguf.tensors["token_embd.weight"].shape) != 2:
        raise _cannot(gguf, "there is no embedding")
    n_layer, n_embd, n_head = (read(name, int) for name in ("block_count", "embedding_length", "attention.head_count"))
    gemma = family == "gemma3"
    return ModelShape(
        family=family,
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_kv_head=read("attention.head_count_kv", int, n_head),
        head_dim=read("attention.key_length", int, n_embd // max(n_head, 1)),
        ffn_dim=read("feed_forward_length", int),
        vocab_size=gguf.tensors["token_embd.weight"].shape[0],
        rope_theta=read("rope.freq_base", float, 10_000.0),
        norm_eps=round(read("attention.layer_norm_rms_epsilon", float, 1e-6), 12),
        tie_embeddings="output.weight" not in gguf.tensors,
        max_seq_len=read("context_length", int, 32768),
        sliding_window=read("attention.sliding_window", int) if gemma else 0,
        local_layers=tuple((layer + 1) % GEMMA3_PATTERN != 0 for layer in range(min(n_layer, 1024))) if gemma else (),
        rope_local_theta=read("rope.freq_base_swa", float, GEMMA3_LOCAL_THETA) if gemma else 0.0,
    )


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
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = {}
    for theirs, ours in _names(shape).items():
        rows = keep if ours in ("embed_tokens.weight", "lm_head.weight") else None
        tensor = _read(gguf, theirs, dtype, rows, shape.row.norm_offset if "norm" in ours else 0.0)
        if tuple(tensor.shape) != expected[ours]:
            raise _cannot(gguf, f"{theirs} is {tuple(tensor.shape)} where {expected[ours]} was expected")
        state[ours] = tensor
        if on_tensor:
            on_tensor(theirs)
    model.load_state_dict(state, assign=True)
    return model


def _names(shape: ModelShape) -> dict[str, str]:
    """GGUF tensor name → ours, for all tensors of a shape."""
    parts = {**_BLOCK, **(_SANDWICH if shape.row.sandwich_norms else _PRE_NORM)}
    names = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
    if not shape.tie_embeddings:
        names["output.weight"] = "lm_head.weight"
    for layer in range(shape.n_layer):
        names |= {f"blk.{layer}.{theirs}.weight": f"layers.{layer}.{ours}.weight" for theirs, ours in parts.items()}
    return names


def _read(gguf: Gguf, name: str, dtype: torch.dtype, keep: Sequence[int] | None, offset: float) -> torch.Tensor:
    """A tensor in its final dtype, dequantised some rows at a time; GGUF stores norms with the offset added."""
    entry = gguf.tensors.get(name)
    if entry is None or len(entry.shape) == 1:
        return torch.from_numpy(gguf.tensor(name) - np.float32(offset)).to(dtype)
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
