"""A writer of GGUF files: metadata, then tensors in float32, float16 or 8-bit blocks.

Layout after ggml's format description (github.com/ggml-org/ggml, docs/gguf.md), version 3, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError
from causerie.model.quants import ENCODINGS

F32, F16, Q8_0 = 0, 1, 8
ALIGNMENT: Final = 32
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TensorOut:
    """A tensor to write: rows first, as in PyTorch; its values are asked for when its turn comes."""

    name: str
    shape: tuple[int, ...]
    encoding: int
    values: Callable[[], Floats]

    @property
    def bytes(self) -> int:
        """Bytes it takes in the file, padding left out."""
        encoding = ENCODINGS[self.encoding]
        return int(np.prod(self.shape)) // encoding.values * encoding.bytes


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Iterable[TensorOut]) -> None:
    """Write a GGUF file.

    Args:
        path: where; replaced when it is there.
        metadata: key → bool, int, float, str, or a list of one of these kinds. Whole numbers are written unsigned with
            32 bits, in lists signed.
        tensors: in the order in which they are written.
    """
    listed = list(tensors)
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(listed), len(metadata)))
        for key, value in metadata.items():
            _string(file, key)
            _value(file, value)
        offset = 0
        for tensor in listed:
            _string(file, tensor.name)
            sizes = tensor.shape[::-1]
            file.write(struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, tensor.encoding, offset))
            offset += _padded(tensor.bytes)
        _pad(file)
        for tensor in listed:
            file.write(encode(tensor.values(), tensor.encoding).tobytes())
            _pad(file)


def encode(values: Floats, encoding: int) -> NDArray[Any]:
    """Float32 values in one of the encodings that are written here.

    Raises:
        CauserieError: CAU-3010 when a value does not fit float16.
    """
    if encoding == F32:
        return np.ascontiguousarray(values, "<f4")
    if encoding == F16:
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(values).astype("<f2")
        if not np.isfinite(halves).all():
            fix = "export with --dtype f32 or q8_0"
            raise CauserieError("CAU-3010", "a weight does not fit 16-bit floats", where="gguf", fix=fix)
        return halves
    return _q8_0(values)


def _q8_0(values: Floats) -> NDArray[np.uint8]:
    """Blocks of 32 values: a float16 scale, and integers rounded half away from zero."""
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    scaled = blocks * inverse
    levels = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    return np.concatenate((scale.astype("<f2").view(np.uint8), levels.view(np.uint8)), axis=1)


def _string(file: BinaryIO, text: str) -> None:
    raw = text.encode("utf-8")
    file.write(struct.pack("<Q", len(raw)) + raw)


def _value(file: BinaryIO, value: Any) -> None:
    if isinstance(value, bool):
        file.write(struct.pack("<I?", 7, value))
    elif isinstance(value, int):
        file.write(struct.pack("<II", 4, value))
    elif isinstance(value, float):
        file.write(struct.pack("<If", 6, value))
    elif isinstance(value, str):
        file.write(struct.pack("<I", 8))
        _string(file, value)
    elif value and isinstance(value[0], str):
        file.write(struct.pack("<IIQ", 9, 8, len(value)))
        for text in value:
            _string(file, text)
    else:
        kind, dtype = (6, "<f4") if any(isinstance(one, float) for one in value) else (5, "<i4")
        file.write(struct.pack("<IIQ", 9, kind, len(value)) + np.asarray(value, dtype).tobytes())


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
