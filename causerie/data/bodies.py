"""HTTP bodies as archives keep them: chunked and compressed, or said to be so and plain; checked to their end."""

from __future__ import annotations

import zlib
from typing import Final

MAX_BODY: Final = 50_000_000
"""Bytes of a record read at most, and that it may unfold to; a longer one is counted as too large."""
PIECE: Final = 512
"""Bytes of a zstd stream fed at a time: they unfold to 16 MB at most."""
ZSTD_WINDOW: Final = 1 << 27
"""Largest zstd window accepted, bytes: what `zstd --long=27` writes."""
ZSTD_FRAME: Final = b"\x28\xb5\x2f\xfd"


_SHOWN: Final = bytes([*b"\t\n\r\f", *range(0x20, 0x7F), *range(0x80, 0x100)])
"""Bytes of text in any encoding that pages are in."""


class TooLarge(ValueError):
    """A body that is longer than anything that is read."""


def decode_body(body: bytes, transfer: str, encoding: str, most: int = MAX_BODY) -> bytes:
    """Undo chunking and compression where the bytes really have them: many archives keep the header, not the form.

    Raises:
        TooLarge: it unfolds to more than `most` bytes.
        ValueError: the body is compressed and damaged, or cut off.
    """
    if transfer == "chunked":
        body = _join_chunks(body)
    coding = encoding.split(",")[-1].strip().removeprefix("x-")
    try:
        if body[:2] == b"\x1f\x8b":
            return _inflate(body, 31, most)
        if coding == "deflate":
            return _inflate(body, 15 if body[:1] == b"\x78" else -15, most)
        if coding == "zstd" and body[:4] == ZSTD_FRAME:
            return _unfold_zstd(body, most)
        if coding == "br" and body:
            return _unfold_brotli(body, most)
    except TooLarge:
        raise
    except Exception as error:  # zlib, zstandard and brotli each have errors of their own
        if _is_markup(body):
            return body
        raise ValueError(f"damaged {coding or 'gzip'} body: {error}"[:200]) from error
    return body


def _is_markup(body: bytes) -> bool:
    """Whether a body that does not unpack was never packed: a tag and no control characters are at its beginning."""
    head = body[:200]
    return b"<" in head and not head.translate(None, _SHOWN)


def _inflate(body: bytes, bits: int, most: int) -> bytes:
    """Every member of a gzip or deflate stream."""
    parts: list[bytes] = []
    room = most
    while body:
        stream = zlib.decompressobj(wbits=bits)
        parts.append(stream.decompress(body, room + 1))
        room = _left(room, parts[-1], most)
        if not stream.eof:
            raise ValueError("it is cut off")
        body = stream.unused_data if stream.unused_data[:2] == body[:2] and bits == 31 else b""
    return b"".join(parts)


def _unfold_zstd(body: bytes, most: int) -> bytes:
    """Every frame of a zstd stream."""
    import zstandard

    parts: list[bytes] = []
    room = most
    while body[:4] == ZSTD_FRAME:
        stream = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        place = 0
        while place < len(body) and not stream.eof:
            parts.append(stream.decompress(body[place : place + PIECE]))
            room = _left(room, parts[-1], most)
            place += PIECE
        if not stream.eof:
            raise ValueError("it is cut off")
        body = stream.unused_data + body[place:]
    return b"".join(parts)


def _unfold_brotli(body: bytes, most: int) -> bytes:
    import brotli

    stream = brotli.Decompressor()
    parts = [stream.process(body, output_buffer_limit=most + 1)]
    room = _left(most, parts[0], most)
    while not stream.is_finished():
        part = stream.process(b"", output_buffer_limit=room + 1)
        if not part:
            raise ValueError("it is cut off")
        parts.append(part)
        room = _left(room, part, most)
    return b"".join(parts)


def _left(room: int, part: bytes, most: int) -> int:
    if len(part) > room:
        raise TooLarge(f"unfolds to more than {most:,} bytes")
    return room - len(part)


def _join_chunks(body: bytes) -> bytes:
    """The chunks of a body joined; the body itself when it was never chunked.

    Raises:
        ValueError: it ends within a chunk, or something else stands where one should begin.
    """
    parts: list[bytes] = []
    place = 0
    while place < len(body):
        end = body.find(b"\r\n", place, place + 80)
        try:
            size = int(body[place:end].split(b";")[0], 16) if end > place else -1
        except ValueError:
            size = -1
        if size < 0:
            if parts and body[place:].strip():
                raise ValueError(f"no chunk begins at byte {place}")
            return b"".join(parts) if parts else body
        if size == 0:
            break
        parts.append(body[end + 2 : end + 2 + size])
        if len(parts[-1]) < size:
            raise ValueError(f"{len(parts[-1])} of the {size} bytes of a chunk are there")
        place = end + 2 + size + 2
    return b"".join(parts)
