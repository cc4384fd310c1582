"""From a folder to what an engine runs: number types, stop ids, the size of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from causerie.core import CauserieError, read_json
from causerie.infer.config import EngineConfig
from causerie.model import ModelShape, Transformer, base_folder, load_model, shape_from_hf

SMALL_MODEL = 50_000_000
"""Parameters up to which float32 is the automatic type: such a model is bound by operators, not by memory."""


def load_for(folder: Path, config: EngineConfig) -> Transformer:
    """A model or adapter folder's model, adapters merged, in the type that the settings ask for.

    Raises:
        CauserieError: CAU-300x when it cannot be loaded.
    """
    return load_model(folder, dtype=_dtype(config, folder), device=config.device)


def from_state(shape: ModelShape, state: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> Transformer:
    """A model with the given weights (shared where type and device are the same).

    Raises:
        CauserieError: CAU-3108 when names or sizes are not those of the shape.
    """
    with torch.device("meta"):
        model = Transformer(shape)
    try:
        model.load_state_dict({name: value.detach().to(device, dtype) for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        cause = f"the weights are not of the engine's model: {str(error).splitlines()[-1].strip()}"
        raise CauserieError("CAU-3108", cause, where="weights", fix="give weights of the same shape") from error
    return model


def folder_stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end a completion according to a model folder's `generation_config.json`; empty when it says none."""
    for place in (folder, *([base_folder(folder)] if (folder / "adapter_config.json").is_file() else [])):
        if (place / "generation_config.json").is_file():
            value = read_json(place / "generation_config.json").get("eos_token_id")
            return tuple(value) if isinstance(value, list) else () if value is None else (int(value),)
    return ()


def tokenizer_folder(folder: Path) -> Path | None:
    """Where the tokenizer of a model or adapter folder is: in it, else in the adapter's base; None: nowhere."""
    for place in (folder, *([base_folder(folder)] if (folder / "adapter_config.json").is_file() else [])):
        if (place / "tokenizer.json").is_file():
            return place
    return None


def count_blocks(config: EngineConfig, shape: ModelShape, dtype: torch.dtype, max_seq_len: int) -> int:
    """Blocks of the cache.

    Raises:
        CauserieError: CAU-3103 when there is no room for one.
    """
    block_bytes = shape.kv_bytes_per_token(dtype.itemsize) * config.block_size
    useful = config.max_running * -(-max_seq_len // config.block_size)
    count = config.n_blocks or min(config.cache_mb * 2**20 // block_bytes, useful)
    if count < 1:
        raise CauserieError(
            "CAU-3103",
            f"a block of {config.block_size} tokens takes {block_bytes / 2**20:.1f} MiB, cache_mb is {config.cache_mb}",
            where="cache_mb",
            fix="give the cache more memory",
        )
    return count


def _dtype(config: EngineConfig, folder: Path) -> torch.dtype:
    if config.dtype != "auto":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    place = base_folder(folder) if (folder / "adapter_config.json").is_file() else folder
    if not (place / "config.json").is_file():
        return torch.float32  # load_model says what is missing
    large = shape_from_hf(read_json(place / "config.json")).n_params > SMALL_MODEL
    return torch.bfloat16 if large and _bfloat16_is_fast(config.device) else torch.float32


def _bfloat16_is_fast(device: str) -> bool:
    if not device.startswith("cpu"):
        return True
    return bool(torch.cpu._is_avx512_bf16_supported())
