"""Settings of the engine; torch-free, so that the server and the command line can hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from causerie.core import CauserieError


@dataclass(frozen=True)
class EngineConfig:
    """How an engine holds its model and its key-value cache."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of weights and cache; auto: bfloat16 above 50M parameters where it is fast, else float32."""
    quantize: Literal["int8", "int8-head"] | None = None
    """8-bit integers with per-row scales: int8-head for the output projection alone, int8 for all linear layers too."""
    device: str = "cpu"
    """Torch device that the model and its cache live on."""
    block_size: int = 16
    """Tokens per block of the key-value cache."""
    cache_mb: int = 512
    """Memory for the key-value cache in MiB; used only as it fills."""
    n_blocks: int | None = None
    """Number of blocks; None: as many as `cache_mb` holds, never more than `max_running` full sequences need."""
    max_running: int = 64
    """Sequences computed in one step, at most."""
    max_batch_tokens: int = 512
    """Tokens computed in one step, at most: bounds how long a prompt delays the streams beside it."""
    max_seq_len: int | None = None
    """Prompt and completion together, at most; None: what the model was made for."""
    prefix_cache: bool = True
    """Keep finished blocks and reuse them for prompts that begin alike."""
    spare: bool = True
    """Keep a second process with torch imported (about 250 MB): one that dies is replaced in a second or two."""
    threads: int | None = None
    """Processor threads; None: chosen by the size of the model."""

    def __post_init__(self) -> None:
        for name in ("block_size", "cache_mb", "max_running", "max_batch_tokens"):
            _at_least_one(name, getattr(self, name))
        for name in ("n_blocks", "max_seq_len", "threads"):
            if getattr(self, name) is not None:
                _at_least_one(name, getattr(self, name))
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise CauserieError("CAU-3108", f"dtype {self.dtype!r} is unknown", fix="use auto, float32 or bfloat16")
        if self.quantize not in (None, "int8", "int8-head"):
            raise CauserieError("CAU-3108", f"quantize {self.quantize!r} is unknown", fix="use int8 or int8-head")


def _at_least_one(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CauserieError("CAU-3108", f"{name} is {value!r}", where=name, fix="give a whole number of at least 1")
