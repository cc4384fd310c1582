"""A bounded reader of GGUF files: header, metadata, and tensors turned back into float32.

Layout after ggml's format description (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3, little
endian. Every length is checked against the file before it is believed, so a damaged or hostile file ends in
a `CauserieError`, never in anything else.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from causerie.core import CauserieError
from causerie.model.quants import ENCODINGS, dequantise

MAGIC: Final = b"GGUF"
MOST_ENTRIES: Final = 1 << 16
"""Most metadata entries or tensors that a header may announce."""
_SCALARS: Final = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL: Final = 7
_NUMPY: Final = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    _BOOL: "u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING: Final = 8
_ARRAY: Final = 9


@dataclass(frozen=True)
class GgufTensor:
    """One tensor's entry in the header: rows first, as in PyTorch; `start` counts from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    encoding: int
    start: int
    bytes: int


@dataclass(frozen=True)
class Gguf:
    """An open GGUF file; tensors are read on demand from a memory map."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    data: NDArray[np.uint8]

    def tensor(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """A tensor as float32, or its rows `start` to `stop`.

        Raises:
            CauserieError: CAU-3004 when there is no such tensor.
        """
        entry = self.tensors.get(name)
        if entry is None:
            fix = "use a complete GGUF file of this model"
            raise CauserieError("CAU-3004", f"there is no tensor {name}", where=str(self.path), fix=fix)
        rows = entry.shape[0] if len(entry.shape) > 1 else 1
        stop = rows if stop is None else min(stop, rows)
        row_bytes = entry.bytes // rows
        raw = self.data[entry.start + start * row_bytes : entry.start + stop * row_bytes]
        values = dequantise(np.ascontiguousarray(raw), entry.encoding)
        return values.reshape((stop - start, *entry.shape[1:]) if len(entry.shape) > 1 else entry.shape)


def open_gguf(path: Path) -> Gguf:
    """Open a GGUF file and read its header and metadata.

    Raises:
        CauserieError: CAU-1001 when absent, CAU-3006 when damaged, CAU-3007 when a tensor's encoding is unknown.
    """
    if not path.is_file():
        raise CauserieError("CAU-1001", "no such file", where=str(path), fix="check the path")
    if path.stat().st_size < 24:
        raise _damaged(path, "the file is too short")
    data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
    reader = _Reader(path, data)
    if reader.take(4) != MAGIC:
        raise _damaged(path, "it does not begin with GGUF")
    version = reader.number("<I")
    if version not in (2, 3):
        raise _damaged(path, f"version {version} is not 2 or 3")
    n_tensors, n_entries = reader.count(24), reader.count(13)
    metadata = {}
    for _ in range(n_entries):
        key = reader.string()
        metadata[key] = reader.value(reader.number("<I"))
    announced = [_announced(reader) for _ in range(n_tensors)]
    return Gguf(path, metadata, _placed(path, announced, metadata, reader.at, len(data)), data)


@dataclass
class _Reader:
    """A cursor over the file that refuses to step outside it."""

    path: Path
    view: NDArray[np.uint8]
    at: int = 0

    def take(self, size: int) -> bytes:
        if size > len(self.view) - self.at:
            raise _damaged(self.path, f"{size} bytes are announced at byte {self.at}, beyond the end")
        self.at += size
        return self.view[self.at - size : self.at].tobytes()

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, least_bytes: int) -> int:
        """A number of things of at least so many bytes each, which must fit into what is left."""
        number: int = self.number("<Q")
        if number > MOST_ENTRIES or number * least_bytes > len(self.view) - self.at:
            raise _damaged(self.path, f"{number} entries are announced at byte {self.at - 8}, more than fit")
        return number

    def string(self) -> str:
        try:
            return self.take(self.number("<Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(self.path, f"a string before byte {self.at} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.number("<I"), self.number("<Q"))
        raise _damaged(self.path, f"value type {kind} at byte {self.at} is unknown")

    def array(self, kind: int, count: int) -> list[Any]:
        if kind in _NUMPY:
            values: list[Any] = np.frombuffer(self.take(count * np.dtype(_NUMPY[kind]).itemsize), _NUMPY[kind]).tolist()
            return [bool(value) for value in values] if kind == _BOOL else values
        if kind != _STRING:
            raise _damaged(self.path, f"arrays of value type {kind} (byte {self.at}) are not used by models")
        if count * 8 > len(self.view) - self.at:
            raise _damaged(self.path, f"{count} strings are announced at byte {self.at}, more than fit")
        return [self.string() for _ in range(count)]


def _announced(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (rows first), encoding and offset of the next tensor in the header."""
    name, n_dims = reader.string(), reader.number("<I")
    if not 1 <= n_dims <= 4:
        raise _damaged(reader.path, f"the tensor {name!r} has {n_dims} dimensions")
    sizes = struct.unpack(f"<{n_dims}Q", reader.take(8 * n_dims))
    encoding, offset = struct.unpack("<IQ", reader.take(12))
    return name, sizes[::-1], encoding, offset


def _placed(
    path: Path, announced: list[tuple[str, tuple[int, ...], int, int]], metadata: dict[str, Any], end: int, size: int
) -> dict[str, GgufTensor]:
    """Tensors with their places in the file, each checked to lie inside it."""
    align = metadata.get("general.alignment", 32)
    if not isinstance(align, int) or not 0 < align <= 1 << 16:
        raise _damaged(path, f"alignment {align!r} is impossible")
    base = -(-end // align) * align
    tensors: dict[str, GgufTensor] = {}
    for name, shape, encoding, offset in announced:
        if encoding not in ENCODINGS:
            fix = f"use a file with {', '.join(found.name for found in ENCODINGS.values())}"
            raise CauserieError("CAU-3007", f"{name}: encoding {encoding} is not known", where=str(path), fix=fix)
        block, block_bytes = ENCODINGS[encoding].values, ENCODINGS[encoding].bytes
        count = math.prod(shape)
        length = count // block * block_bytes
        if not count or shape[-1] % block or base + offset + length > size or name in tensors:
            raise _damaged(path, f"the tensor {name!r} of shape {shape} at {offset} does not fit the file")
        tensors[name] = GgufTensor(name, shape, encoding, base + offset, length)
    return tensors


def _damaged(path: Path, cause: str) -> CauserieError:
    return CauserieError("CAU-3006", f"not a sound GGUF file: {cause}", where=str(path), fix="fetch the file again")
