"""ggml's tensor encodings turned back into float32, vectorised.

A quantised tensor is a sequence of blocks; each block keeps small integers and one or two scales. Layouts
after the block structures of ggml (github.com/ggml-org/ggml, src/ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoding:
    """One encoding: values and bytes of a block, and how (blocks, bytes) uint8 becomes (blocks, values) float32."""

    name: str
    values: int
    bytes: int
    decode: Callable[[Bytes], Floats]


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block, (blocks, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _plain(dtype: str) -> Callable[[Bytes], Floats]:
    return lambda blocks: blocks.view(dtype).astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: Bytes) -> Floats:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _half(blocks, 0)


def _nibbles(packed: Bytes) -> Bytes:
    """(blocks, n) → (blocks, 2n): all low halves, then all high halves."""
    return np.concatenate((packed & 15, packed >> 4), axis=-1)


def _q4_0(blocks: Bytes) -> Floats:
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - 8) * _half(blocks, 0)


def _q5_0(blocks: Bytes) -> Floats:
    fifth = np.unpackbits(np.ascontiguousarray(blocks[:, 2:6]), axis=1, bitorder="little")
    return ((_nibbles(blocks[:, 6:]) | fifth << 4).astype(np.float32) - 16) * _half(blocks, 0)


def _scales_and_minima(packed: Bytes) -> tuple[Floats, Floats]:
    """Six-bit scales and minima of eight sub-blocks, (blocks, 8) each, from twelve bytes."""
    first, second, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((first & 63, (rest & 15) | (first >> 6) << 4), axis=1)
    minima = np.concatenate((second & 63, (rest >> 4) | (second >> 6) << 4), axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_blocks(blocks: Bytes, small: Bytes) -> Floats:
    """Q4_K and Q5_K: (blocks, 8, 32) small integers · scale - minimum of each sub-block."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scales, minima = scales * _half(blocks, 0), minima * _half(blocks, 2)
    return (small * scales[..., None] - minima[..., None]).reshape(len(blocks), 256)


def _q4_k(blocks: Bytes) -> Floats:
    return _k_blocks(blocks, _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def _q5_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return _k_blocks(blocks, low | fifth.astype(np.uint8) << np.uint8(4))


def _q6_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3
    small = (low | high << 4).astype(np.float32).reshape(-1, 16, 16) - 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _half(blocks, 208)
    return (small * scales[..., None]).reshape(len(blocks), 256)


ENCODINGS: Final[Mapping[int, Encoding]] = MappingProxyType(
    {
        0: Encoding("F32", 1, 4, _plain("<f4")),
        1: Encoding("F16", 1, 2, _plain("<f2")),
        2: Encoding("Q4_0", 32, 18, _q4_0),
        6: Encoding("Q5_0", 32, 22, _q5_0),
        8: Encoding("Q8_0", 32, 34, _q8_0),
        12: Encoding("Q4_K", 256, 144, _q4_k),
        13: Encoding("Q5_K", 256, 176, _q5_k),
        14: Encoding("Q6_K", 256, 210, _q6_k),
        30: Encoding("BF16", 1, 2, _bf16),
    }
)
"""ggml's number of an encoding → how to read it."""


def dequantise(raw: NDArray[Any], encoding: int) -> Floats:
    """Float32 values of whole blocks.

    Args:
        raw: contiguous uint8, a multiple of the encoding's block size.
        encoding: a key of `ENCODINGS`.

    Returns:
        (values,) float32.
    """
    found = ENCODINGS[encoding]
    with np.errstate(over="ignore", invalid="ignore"):
        return found.decode(raw.reshape(-1, found.bytes)).reshape(-1)
