"""Rows of JSONL and Parquet files as documents. Lines and rows are read one by one, never longer than a limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from causerie.core import BROKEN_STREAM
from causerie.data.raw import RawDocument

MAX_LINE: Final = 50_000_000
"""Bytes of a line, or of a row's text; a longer one is dropped and counted, and is never in memory as a whole."""
SKIP: Final = 1 << 20
COLUMNS: Final = (
    *("text", "content", "raw_content", "html", "url", "source_url", "uri", "title", "license", "licence"),
)
PARQUET_ROWS: Final = 64


def read_lines(stream: IO[bytes], label: str) -> Iterator[RawDocument]:
    """Documents of a JSONL stream; lines end with \\n only, whatever U+2028 the text holds.

    A line that is no JSON object with a text is yielded with its problem and line number; a stream that breaks off
    is, too, after what could be read.
    """
    index, number = -1, 0
    try:
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            too_long = len(line) > MAX_LINE
            if too_long:
                _skip_line(stream)
            if not line.strip():
                continue
            index += 1
            if too_long:
                note = f"line {number} is longer than {MAX_LINE:,} bytes"
                yield RawDocument(label, index, problem="too_large", note=note)
            else:
                yield read_line(line, label, index, number)
    except (*BROKEN_STREAM, ValueError) as error:
        yield RawDocument(label, index + 1, problem="broken_record", note=f"after line {number}: {error}"[:200])


def _skip_line(stream: IO[bytes]) -> None:
    while piece := stream.readline(SKIP):
        if piece.endswith(b"\n"):
            return


def read_line(line: bytes, label: str, index: int, number: int) -> RawDocument:
    """One line as a document, or what is wrong with it."""
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        return from_fields(value, label, index)
    except RecursionError:
        cause = "nested too deeply"
    except ValueError as error:
        cause = str(error).partition(": line 1 column")[0]
    return RawDocument(label, index, problem="broken_record", note=f"line {number}: {cause}"[:200])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, unless a key comes twice: which of the two was meant, nobody can say."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} comes twice")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def from_fields(value: dict[str, Any], label: str, index: int) -> RawDocument:
    """A document from a row with `text` (or `content`, or `html`) and, if known, `url`, `title`, `lang`, `license`.

    Raises:
        ValueError: the text holds half a surrogate pair, which no encoding can write.
    """

    def word(*names: str) -> str:
        found = (value.get(name) for name in names)
        return next((item for item in found if isinstance(item, str) and item), "")

    text, html = word("text", "content", "raw_content"), word("html")
    try:
        body = (text or html).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate at character {error.start}") from error
    facts = {name: value.encode("utf-8", "replace").decode() for name, value in _facts(word).items()}
    problem = "" if body else "empty"
    if len(body) > MAX_LINE:
        body, problem = b"", "too_large"
    return RawDocument(label, index, kind="text" if text else "html", body=body, problem=problem, **facts)


def _facts(word: Any) -> dict[str, str]:
    return {
        "url": word("url", "source_url", "uri"),
        "title": word("title"),
        "license": word("license", "licence"),
    }


def read_parquet(path: Path, label: str) -> Iterator[RawDocument]:
    """Documents of a Parquet file with a text column, a few rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = 0
    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in COLUMNS]
        if not columns:
            yield RawDocument(label, 0, problem="broken_record", note="no column is called text, content or html")
            return
        for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=columns):
            for row in batch.to_pylist():
                yield from_fields(row, label, index)
                index += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        yield RawDocument(label, index, problem="broken_record", note=f"after row {index}: {error}"[:200])
