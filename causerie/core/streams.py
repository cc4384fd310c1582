"""Files as streams of bytes, whatever they are packed with; a stream that ends too early says so."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Final, cast

BROKEN_STREAM: Final = (OSError, EOFError, zlib.error)
"""What reading raises where compressed bytes are damaged, or end too early."""


def open_stream(path: Path) -> IO[bytes]:
    """A file's bytes, decompressed when its first bytes say gzip or zstd (any number of members or frames).

    Reading it raises one of `BROKEN_STREAM` where the compressed bytes are damaged or cut off.
    """
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    head = file.read(4)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        return cast(IO[bytes], _Unpacked(gzip.GzipFile(fileobj=file), file))
    if head == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        # zstandard's own reader takes a cut off stream for one that ended
        return cast(IO[bytes], _Unpacked(pa.CompressedInputStream(file, "zstd"), file))
    return file


class _Unpacked(io.BufferedReader):
    """A decompressed stream that closes the file below it, too."""

    def __init__(self, stream: object, below: IO[bytes]) -> None:
        super().__init__(cast(io.RawIOBase, stream))
        self._below = below

    def close(self) -> None:
        """Close the stream and its file."""
        super().close()
        self._below.close()
