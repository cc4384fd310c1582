"""Where documents come from: WARC, WET, ARC, HTML, JSONL, Parquet and text files, compressed or not, folders, globs.

Every reader yields `RawDocument`s in the file's order. What cannot be read is yielded too, with its `problem`, so
that it is counted; a damaged record never ends the work.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from causerie.core import BROKEN_STREAM, cannot_write, open_stream, sha256_file
from causerie.data.bodies import MAX_BODY
from causerie.data.errors import data_error
from causerie.data.raw import RawDocument
from causerie.data.rows import read_lines, read_parquet
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


@dataclass(frozen=True)
class SourceFile:
    """One input file: where it is, the short name it has in the ledger, and how it is read."""

    path: Path
    label: str
    kind: Kind

    def size(self) -> int:
        """Bytes of the file; of a link that is not followed, its own."""
        return self.path.lstat().st_size

    def digest(self) -> str:
        """SHA-256 of the file; of a link that is not followed, of where it leads."""
        if self.path.is_symlink():
            return hashlib.sha256(os.readlink(self.path).encode("utf-8", "surrogateescape")).hexdigest()
        return sha256_file(self.path)


def find_sources(sources: tuple[str, ...], spool: Path) -> list[SourceFile]:
    """Files of all sources, in the order given; the files of a folder or glob in the order of their names.

    Args:
        sources: files, folders, globs, or `-` for standard input. A link is followed when it is named, or matches a
            glob; in a folder it is not, because it may lead anywhere, and is counted.
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
    return [SourceFile(path, _readable(labels[path]), kind) for path, kind in kinds.items()]


def _readable(label: str) -> str:
    """A label that can be written down, on one line: line breaks and other control characters appear as `\\n`, bytes of
    a name that are no UTF-8 as `\\udce9`."""
    plain = label.encode("utf-8", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in plain)


def _match(source: str, spool: Path) -> list[Path]:
    if source == "-":
        return [_spool_stdin(spool)]
    path = named_path(source)
    if path.is_dir():
        known = (file for file in path.rglob("*") if _suffix(file) in SUFFIXES)
        found = sorted(file for file in known if file.is_file() or file.is_symlink())
    elif path.is_file():
        found = [_follow(path)]
    else:
        named = map(Path, glob.glob(str(path), recursive=True))
        found = sorted(_follow(file) for file in named if file.is_file() or file.is_symlink())
    if not found:
        raise data_error("CAU-2001", f"no file matches {source!r}", where=source, fix="check the path or the glob")
    return found


def named_path(source: str) -> Path:
    """The path that was written, `~` and all.

    Raises:
        CauserieError: CAU-2001 when nothing was, or nobody has this home.
    """
    try:
        if not source:
            raise RuntimeError("an empty name")
        return Path(source).expanduser()
    except RuntimeError as error:
        raise data_error("CAU-2001", str(error), where=repr(source), fix="check the path or the glob") from error


def _follow(path: Path) -> Path:
    """Where a link that was named leads, when it leads to a file."""
    return path.resolve() if path.is_symlink() and path.is_file() else path


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
    except (*BROKEN_STREAM, ValueError):
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
    if b"\0" not in head and (head or not path.stat().st_size):
        return "text"
    raise data_error(
        "CAU-2002",
        "the file is of no kind that can be read",
        where=str(path),
        fix="give WARC, HTML, JSONL, Parquet, .txt or .md files, plain or compressed with gzip or zstd",
    )


def _spool_stdin(spool: Path) -> Path:
    arriving = spool / f".stdin-{os.getpid()}.part"
    try:
        spool.mkdir(parents=True, exist_ok=True)
        with open(arriving, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        final = spool / f"stdin-{sha256_file(arriving)[:16]}"
        arriving.replace(final)
    except OSError as error:
        with contextlib.suppress(OSError):
            arriving.unlink(missing_ok=True)
        raise cannot_write(spool, error) from error
    return final


def iter_documents(path: Path | str, label: str | None = None) -> Iterator[RawDocument]:
    """Documents of one file, in its order; broken ones carry a `problem`, and so does a file without any.

    Raises:
        CauserieError: CAU-2002 when the file's kind is unknown.
    """
    file = Path(path)
    name = label or file.name
    if file.is_symlink():
        note = "a link in a folder is not followed; name it to read it"
        yield RawDocument(name, 0, problem="link", note=note if file.exists() else "it leads nowhere")
        return
    empty = True
    for document in _read(file, name):
        empty = False
        yield document
    if empty:
        yield RawDocument(name, 0, problem="empty", note="no document is in the file")


def _read(file: Path, name: str) -> Iterator[RawDocument]:
    kind = kind_of(file)
    if kind == "warc":
        yield from read_warc(file, name)
    elif kind == "arc":
        yield from read_arc(file, open_stream(file), name)
    elif kind == "parquet":
        yield from read_parquet(file, name)
    elif kind == "jsonl":
        with open_stream(file) as stream:
            yield from read_lines(stream, name)
    else:
        yield _whole_file(file, name, "html" if kind == "html" else "text")


def _whole_file(path: Path, label: str, kind: Literal["html", "text"]) -> RawDocument:
    try:
        with open_stream(path) as stream:
            body = stream.read(MAX_BODY + 1)
    except (*BROKEN_STREAM, ValueError) as error:
        return RawDocument(label, 0, problem="broken_record", note=str(error)[:200])
    if len(body) > MAX_BODY:
        return RawDocument(label, 0, problem="too_large", note=f"longer than {MAX_BODY:,} bytes")
    if kind == "text" and b"\0" in body[:4096] and not body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return RawDocument(label, 0, problem="broken_record", note=f"NUL at byte {body.index(0)}: not a text")
    return RawDocument(label, 0, kind=kind, body=body, problem="" if body.strip() else "empty")
