"""Texts to train a tokenizer on: plain files, JSON lines (also .zst and .gz), folders of them, corpora."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from causerie.core import BROKEN_STREAM, CauserieError, open_stream, read_manifest, sha256_file

_LINES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".ndjson")
_PLAIN = (".txt", ".md", ".rst")


def source_files(sources: Sequence[str]) -> list[Path]:
    """Files that the sources name, each once, in order: files, globs, folders (searched), corpus artifacts.

    Raises:
        CauserieError: CAU-1203 naming the first source that names nothing readable.
    """
    found: dict[Path, None] = {}
    for source in sources:
        paths = [Path(name) for name in sorted(glob.glob(source, recursive=True))] or [Path(source)]
        files = [file for path in paths for file in _files_of(path)]
        if not files:
            raise CauserieError(
                "CAU-1203",
                "nothing readable there",
                where=source,
                fix=f"give a corpus folder or files ending in {', '.join(_LINES + _PLAIN)}",
            )
        found.update(dict.fromkeys(files))
    return list(found)


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        documents = path / "documents.jsonl.zst"
        if documents.exists():
            return [documents]
        return sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(_LINES + _PLAIN))
    return [path] if path.is_file() else []


def source_key(file: Path) -> str:
    """What identifies a file's content: the key of the artifact it belongs to, else its SHA-256."""
    if (file.parent / "manifest.json").exists():
        return read_manifest(file.parent).key
    return sha256_file(file)


def iter_texts(file: Path) -> Iterator[str]:
    """Texts of one file: the "text" field (or the contents of "messages") of each JSON line, or the whole file.

    Raises:
        CauserieError: CAU-1203 with the line of the first row that cannot be read.
    """
    if not file.name.endswith(_LINES):
        try:
            yield file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            fix = "convert it: iconv -f ISO-8859-1 -t UTF-8, for instance"
            raise CauserieError("CAU-1203", f"not UTF-8: {error}", where=str(file), fix=fix) from error
        return
    number = 0
    with open_stream(file) as stream:
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield from _texts_of(_row(line, file, number), file, number)
        except BROKEN_STREAM as error:
            raise _bad_row(file, number + 1, f"the file breaks off: {error}") from error


def _row(line: bytes, file: Path, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _bad_row(file, number, str(error)) from error


def _texts_of(row: Any, file: Path, number: int) -> list[str]:
    if isinstance(row, dict) and isinstance(row.get("text"), str):
        return [row["text"]]
    messages = row.get("messages") if isinstance(row, dict) else None
    if isinstance(messages, list):
        return [m["content"] for m in messages if isinstance(m, dict) and isinstance(m.get("content"), str)]
    raise _bad_row(file, number, 'neither a "text" nor a "messages" field')


def _bad_row(file: Path, number: int, cause: str) -> CauserieError:
    return CauserieError("CAU-1203", cause, where=f"{file}:{number}", fix="mend or remove the line")


def interleave(files: Sequence[Path], max_bytes: int) -> Iterator[str]:
    """Texts of all files in turn, one each, until `max_bytes` of UTF-8 were given (0: all)."""
    streams = [iter_texts(file) for file in files]
    given = 0
    while streams:
        for stream in list(streams):
            text = next(stream, None)
            if text is None:
                streams.remove(stream)
                continue
            given += len(text.encode("utf-8", "replace"))
            yield text
            if max_bytes and given >= max_bytes:
                return
