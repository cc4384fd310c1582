"""Where documents come from: WARC, WET, ARC, HTML, JSONL, Parquet and text files, compressed or not, folders, globs.

Every reader yields `RawDocument`s in the file's order. What cannot be read is yielded too, with its `problem`, so
that it is counted; a damaged record never ends the work.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import shutil
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from causerie.core import sha256_file
from causerie.data.errors import data_error
from causerie.data.raw import RawDocument
from causerie.data.warc import read_arc, read_warc

Kind = Literal["warc", "arc", "jsonl", "parquet", "html", "text"]

SUFFIXES: Final[dict[str, Kind]] = {
    ".warc": "warc",
    ".wet": "warc",
    ".arc": "arc",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".txt": "text",
    ".md": "text",
}
COMPRESSED: Final = (".gz", ".zst", ".lz4")
ZSTD_WINDOW: Final = 1 << 27
"""Largest zstd window accepted, bytes: what `zstd --long=27` writes."""


@dataclass(frozen=True)
class SourceFile:
    """One input file: where it is, the short name it has in the ledger, and how it is read."""

    path: Path
    label: str
    kind: Kind


def find_sources(sources: tuple[str, ...], spool: Path) -> list[SourceFile]:
    """Files of all sources, in the order given; the files of a folder or glob in the order of their names.

    Args:
        sources: files, folders, globs, or `-` for standard input.
        spool: folder where standard input is kept, so that a second start can read it again.

    Raises:
        CauserieError: CAU-2001 when a source matches nothing, CAU-2002 when a file's kind is unknown.
    """
    paths: dict[Path, None] = {}
    for source in sources:
        for path in _match(source, spool):
            paths.setdefault(path)
    kinds = {path: kind_of(path) for path in paths}
    names = [path.name for path in paths]
    labels = {path: path.name if names.count(path.name) == 1 else "/".join(path.parts[-2:]) for path in paths}
    return [SourceFile(path, labels[path], kind) for path, kind in kinds.items()]


def _match(source: str, spool: Path) -> list[Path]:
    if source == "-":
        return [_spool_stdin(spool)]
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in SUFFIXES)
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not found:
        raise data_error("CAU-2001", f"no file matches {source!r}", where=source, fix="check the path or the glob")
    return found


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def kind_of(path: Path) -> Kind:
    """How a file is read: by its name, else by its first bytes.

    Raises:
        CauserieError: CAU-2002 when neither tells.
    """
    if _suffix(path) in SUFFIXES:
        return SUFFIXES[_suffix(path)]
    try:
        with open_stream(path) as stream:
            head = stream.read(512).lstrip()
    except (OSError, EOFError, ValueError, zlib.error):
        head = b""
    signs: tuple[tuple[bytes, Kind], ...] = (
        (b"WARC/", "warc"),
        (b"filedesc:", "arc"),
        (b"PAR1", "parquet"),
        (b"{", "jsonl"),
        (b"<", "html"),
    )
    for sign, kind in signs:
        if head.startswith(sign):
            return kind
    if head and b"\0" not in head:
        return "text"
    raise data_error(
        "CAU-2002",
        "the file is of no kind that can be read",
        where=str(path),
        fix="give WARC, HTML, JSONL, Parquet, .txt or .md files, plain or compressed with gzip or zstd",
    )


def _spool_stdin(spool: Path) -> Path:
    spool.mkdir(parents=True, exist_ok=True)
    arriving = spool / ".stdin.part"
    with open(arriving, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    final = spool / f"stdin-{sha256_file(arriving)[:16]}"
    arriving.replace(final)
    return final


def open_stream(path: Path) -> IO[bytes]:
    """A file's bytes, decompressed when its first bytes say gzip or zstd (LZ4 is read in archives only)."""
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    head = file.read(4)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if head == b"\x28\xb5\x2f\xfd":
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(file, read_across_frames=True)
        return io.BufferedReader(reader)
    return file


def iter_documents(path: Path | str, label: str | None = None) -> Iterator[RawDocument]:
    """Documents of one file, in its order; broken ones carry a `problem`.

    Raises:
        CauserieError: CAU-2002 when the file's kind is unknown.
    """
    file = Path(path)
    name = label or file.name
    kind = kind_of(file)
    if kind == "warc":
        yield from read_warc(file, name)
    elif kind == "arc":
        yield from read_arc(file, open_stream(file), name)
    elif kind == "parquet":
        yield from _parquet(file, name)
    elif kind == "jsonl":
        yield from _jsonl(file, name)
    else:
        yield _whole_file(file, name, "html" if kind == "html" else "text")


def _whole_file(path: Path, label: str, kind: Literal["html", "text"]) -> RawDocument:
    try:
        with open_stream(path) as stream:
            return RawDocument(label, 0, kind=kind, body=stream.read())
    except (OSError, EOFError, ValueError, zlib.error):
        return RawDocument(label, 0, problem="broken_record")


def _jsonl(path: Path, label: str) -> Iterator[RawDocument]:
    index = -1
    try:
        with open_stream(path) as stream:
            for line in stream:  # bytes: lines end with \n only, whatever U+2028 the text holds
                if line.strip():
                    index += 1
                    yield _row(line, label, index)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        yield RawDocument(label, index + 1, problem="broken_record", note=str(error)[:200])
    except Exception as error:  # zstandard.ZstdError derives from Exception alone
        if type(error).__name__ != "ZstdError":
            raise
        yield RawDocument(label, index + 1, problem="broken_record", note=str(error)[:200])


def _row(line: bytes, label: str, index: int) -> RawDocument:
    try:
        value = json.loads(line.decode("utf-8-sig" if index == 0 else "utf-8"))
    except (ValueError, RecursionError):
        return RawDocument(label, index, problem="broken_record")
    if not isinstance(value, dict):
        return RawDocument(label, index, problem="broken_record")
    return from_fields(value, label, index)


def from_fields(value: dict[str, Any], label: str, index: int) -> RawDocument:
    """A document from a row with `text` (or `content`, or `html`) and, if known, `url`, `title`, `lang`, `license`."""

    def word(*names: str) -> str:
        found = (value.get(name) for name in names)
        return next((item for item in found if isinstance(item, str) and item), "")

    text, html = word("text", "content", "raw_content"), word("html")
    return RawDocument(
        label,
        index,
        kind="text" if text else "html",
        body=(text or html).encode("utf-8", "replace"),
        url=word("url", "source_url", "uri"),
        title=word("title"),
        license=word("license", "licence"),
        problem="" if text or html else "empty",
    )


def _parquet(path: Path, label: str) -> Iterator[RawDocument]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = ("text", "content", "raw_content", "html", "url", "title", "license", "licence")
    index = 0
    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in wanted]
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                yield from_fields(row, label, index)
                index += 1
    except (pa.ArrowException, OSError) as error:
        yield RawDocument(label, index, problem="broken_record", note=str(error)[:200])
