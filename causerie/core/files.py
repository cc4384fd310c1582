"""Files that are whole or absent, digests, and JSON lines read one by one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from causerie.core.crash import crashpoint
from causerie.core.errors import CauserieError
from causerie.core.streams import BROKEN_STREAM, open_stream


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush every file below `folder`, then the folders themselves, to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            fsync_folder(path)
    fsync_folder(folder)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part, whoever else writes it meanwhile.

    Half surrogate pairs (names of files that are no UTF-8) are written as `\\udce9`, which JSON reads back.

    Raises:
        CauserieError: CAU-1007 when the disk is full or the folder cannot be written.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if not path.name:
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, "it is a folder"))
    beside = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        crashpoint("files.before_rename")
        os.replace(beside, path)
        fsync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CauserieError:
    """CAU-1007 for a failed write: names the file, what the system said, and the space that is free there."""
    return CauserieError(
        "CAU-1007",
        f"cannot write {path.name or path}: {error.strerror or error}{_free_space(path)}",
        where=str(path),
        fix="free some space or choose another --workspace, then run the same command again",
    )


def _free_space(path: Path) -> str:
    """` (12.3 MB free)`, of the nearest folder that exists; nothing where it cannot be told."""
    there = next((folder for folder in path.absolute().parents if folder.exists()), None)
    try:
        return "" if there is None else f" ({shutil.disk_usage(there).free / 1e6:,.1f} MB free)"
    except OSError:
        return ""


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented UTF-8 JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CauserieError: CAU-1001 when absent, CAU-1003 when it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CauserieError("CAU-1001", "no such file", where=str(path), fix="check the path") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CauserieError("CAU-1003", f"not JSON: {error}", where=str(path), fix="restore or delete it") from error


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSONL file, one by one; see `numbered_jsonl`."""
    return (value for _, value in numbered_jsonl(path))


def numbered_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL file, plain or packed with gzip or zstd, each with its line's number, from 1.

    Lines end with \\n only (never `splitlines`); empty ones are passed over.

    Raises:
        CauserieError: CAU-1006 with the line number of the first line that is not a JSON object, or where the packed
            file breaks off.
    """
    number = 0
    with open_stream(path) as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, parse_line(line, path, number)
        except BROKEN_STREAM as error:
            raise _bad_line(path, number + 1, f"the file breaks off: {error}") from error


def parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        CauserieError: CAU-1006 with the file and the line's number when there is none.
    """
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _bad_line(path, number, str(error)) from error
    if not isinstance(value, dict):
        raise _bad_line(path, number, f"a JSON object was expected, found {type(value).__name__}")
    return value


def _bad_line(path: Path, number: int, cause: str) -> CauserieError:
    return CauserieError("CAU-1006", cause, where=f"{path}:{number}", fix="mend or remove the line")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines (plain, not atomic: for files inside an artifact being written); returns the count."""
    count = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count
