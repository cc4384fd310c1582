"""Web archives: WARC and WET through fastwarc, ARC by hand; a damaged record is counted and the next one found."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

from causerie.data.bodies import MAX_BODY, ZSTD_FRAME, TooLarge, decode_body
from causerie.data.raw import RawDocument

MAX_HEAD: Final = 65_536
GZIP_MEMBER: Final = b"\x1f\x8b\x08"
LZ4_FRAME: Final = b"\x04\x22\x4d\x18"
PIECE: Final = 65_536
NEXT_RECORD: Final = b"\r\n\r\nWARC/1."
ENCODING: Final = "Content-Encoding"
HTML_TYPES: Final = ("text/html", "application/xhtml+xml")


def read_warc(path: Path, label: str) -> Iterator[RawDocument]:
    """Response, resource and conversion (WET) records of a WARC file as documents.

    A record that cannot be decompressed or parsed is yielded with the problem "broken_record"; reading goes on at
    the next gzip member, or line, that begins a WARC record (a one-member file ends there).
    """
    index, offset, counted = 0, 0, False
    while offset >= 0:
        last, damage = -1, ""
        try:
            for record in _records(path, offset):
                last = offset + int(record.stream_pos)
                document = _document(record, label, index)
                if document is not None:
                    yield document
                    index += 1
        except (OSError, ValueError, EOFError) as error:
            damage = str(error)[:200] or type(error).__name__
        offset = _next_record(path, max(last, offset) + 1)
        if not damage and (offset >= 0 or _goes_on(path, last)):  # the reader took what it did not know for the end
            damage = f"no record begins where one ends{f' before byte {offset}' if offset >= 0 else ''}"
        if damage and (last >= 0 or not counted):  # else it is the record at which the reading before this one ended
            yield RawDocument(label, index, problem="broken_record", note=damage)
            index += 1
        counted = last >= 0


def _records(path: Path, offset: int) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator

    with open(path, "rb") as file:
        file.seek(offset)
        yield from ArchiveIterator(cast(Any, _Tail(file)), quirks_mode=True)


class _Tail:
    """A file from its present position on, counted from zero; only `read` and `tell`, so that nothing seeks back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell() - self._start


def _next_record(path: Path, start: int) -> int:
    """Offset of the next gzip member, or line, that begins with a WARC header; -1 when there is none."""
    size = path.stat().st_size
    if start >= size:
        return -1
    with open(path, "rb") as file:
        head = file.read(5)
        if head[:4] in (ZSTD_FRAME, LZ4_FRAME):
            return -1
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if head == b"WARC/":
                place = data.find(NEXT_RECORD, start)
                return place + 4 if place >= 0 else -1
            return _next_member(data, start)


def _goes_on(path: Path, last: int) -> bool:
    """Whether anything but zeros follows the gzip member that begins at `last`."""
    with open(path, "rb") as file:
        file.seek(max(last, 0))
        stream, data = zlib.decompressobj(wbits=31), file.read(PIECE)
        if last < 0 or not data.startswith(GZIP_MEMBER):
            return False
        while data and not stream.eof:
            stream.decompress(data, 16 * PIECE)
            data = stream.unconsumed_tail or file.read(PIECE)
        return bool((stream.unused_data + file.read(PIECE)).strip(b"\0\r\n"))


def _next_member(data: mmap.mmap, start: int) -> int:
    place = data.find(GZIP_MEMBER, start)
    while place >= 0:
        try:
            head = zlib.decompressobj(wbits=31).decompress(data[place : place + 4096], 16)
        except zlib.error:
            head = b""
        if head.startswith(b"WARC/"):
            return place
        place = data.find(GZIP_MEMBER, place + 1)
    return -1


def _document(record: Any, label: str, index: int) -> RawDocument | None:
    """The record as a document; None for records that are no documents (requests, metadata, DNS answers)."""
    from fastwarc.warc import WarcRecordType as Kinds

    if record.record_type not in (Kinds.response, Kinds.resource, Kinds.conversion, Kinds.revisit):
        return None
    if record.headers.get("Content-Length") is None:
        raise RunsOn("the head of the record is cut off")
    url = record.headers.get("WARC-Target-URI") or ""
    url = url.strip("<> ")
    if url.startswith(("dns:", "metadata:", "screenshot:")):
        return None
    facts: dict[str, Any] = {"url": url, "license": record.headers.get("License") or ""}
    if record.record_type == Kinds.revisit:
        earlier = record.headers.get("WARC-Refers-To-Date") or record.headers.get("WARC-Refers-To") or ""
        return RawDocument(label, index, problem="revisit", note=earlier, **facts)
    if cut := record.headers.get("WARC-Truncated"):
        facts["note"] = f"cut off by the crawler: {cut}"
    http = record.http_headers
    if http is not None and http.status_code is not None and http.status_code != 200:
        return RawDocument(label, index, problem="http_status", **{**facts, "note": str(http.status_code)})
    kind, charset = _content_type(record)
    if record.record_type == Kinds.conversion or kind == "text/plain":
        facts["kind"] = "text"
    elif kind in HTML_TYPES or kind == "":
        facts["kind"] = "html"
    else:
        return RawDocument(label, index, problem="not_html", **{**facts, "note": kind})
    try:
        body = read_whole(record.reader, _rest_of(record))
        body = decode_body(body, _header(record, "Transfer-Encoding"), _header(record, ENCODING), MAX_BODY)
    except RunsOn:
        raise
    except TooLarge as error:
        return RawDocument(label, index, problem="too_large", **{**facts, "note": str(error)})
    except (OSError, ValueError, EOFError) as error:
        return RawDocument(label, index, problem="broken_record", **{**facts, "note": str(error)[:200]})
    if kind == "" and facts["kind"] == "html" and b"<" not in body[:2000]:
        return RawDocument(label, index, problem="not_html", **facts)
    return RawDocument(label, index, body=body, charset=charset, problem="" if body.strip() else "empty", **facts)


def _header(record: Any, name: str) -> str:
    headers = record.http_headers
    return str((headers.get(name) or "") if headers is not None else "").strip().lower()


class RunsOn(ValueError):
    """A record whose stated length is wrong, so that it is not known where the next one begins."""


def _rest_of(record: Any) -> int:
    """Bytes of the payload that the record states, or -1."""
    head = record.http_headers
    stated = int(record.content_length)
    return -1 if head is None and stated < 0 else stated


def read_whole(reader: Any, stated: int) -> bytes:
    """A record's payload.

    Raises:
        TooLarge: it is longer than MAX_BODY; the rest is not read.
        RunsOn: fewer bytes are there than the record states, or another record begins among them.
    """
    body = bytes(reader.read(MAX_BODY + 1))
    if len(body) > MAX_BODY:
        raise TooLarge(f"longer than {MAX_BODY:,} bytes")
    if len(body) < stated:
        raise RunsOn(f"{len(body)} of {stated} bytes are there")
    if NEXT_RECORD in body:
        raise RunsOn(f"its stated length of {stated} bytes runs into the next record")
    return body


def _content_type(record: Any) -> tuple[str, str]:
    """MIME type (lower case, without parameters) and charset of the payload; "" for what is not said."""
    if record.http_headers is not None:
        kind = record.http_content_type or ""
        charset = record.http_charset or ""
    else:
        kind, charset = record.headers.get("Content-Type") or "", ""
    return kind.split(";")[0].strip().lower(), charset.lower()


def read_arc(path: Path, stream: IO[bytes], label: str) -> Iterator[RawDocument]:
    """Documents of an ARC 1.0 file: `URL IP date type length` lines, each followed by `length` bytes.

    Source: Internet Archive, "Arc File Format", 1996.
    """
    index = 0
    try:
        with stream:
            while line := stream.readline(65536):
                if not line.strip():
                    continue
                fields = line.decode("latin-1").split()
                block = _arc_block(stream, int(fields[-1]))
                if fields[0].startswith(("filedesc:", "dns:")):
                    continue
                if block is None:
                    yield RawDocument(label, index, url=fields[0], problem="too_large")
                else:
                    yield _arc_document(fields[0], block, label, index)
                index += 1
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        yield RawDocument(label, index, problem="broken_record", note=str(error)[:200])


def _arc_block(stream: IO[bytes], size: int) -> bytes | None:
    """The bytes of a record; None, and read past, when it is too large."""
    if size < 0:
        raise ValueError(f"a length of {size}")
    if size > MAX_BODY:
        while size > 0 and (piece := stream.read(min(size, 1 << 20))):
            size -= len(piece)
        return None
    block = stream.read(size)
    if len(block) < size:
        raise EOFError(f"{len(block)} of {size} bytes are there")
    return block


def _arc_document(url: str, block: bytes, label: str, index: int) -> RawDocument:
    cut = b"\r\n\r\n" if b"\r\n\r\n" in block[:MAX_HEAD] else b"\n\n"
    head, _, body = block.partition(cut)
    lines = head.decode("latin-1").replace("\r", "").split("\n")
    status = lines[0].split()[1:2]
    if status != ["200"]:
        return RawDocument(label, index, url=url, problem="http_status", note=" ".join(status))
    types = [line.partition(":")[2] for line in lines[1:] if line.lower().startswith("content-type:")]
    kind, _, rest = types[0].partition(";") if types else ("", "", "")
    kind = kind.strip().lower()
    if kind not in (*HTML_TYPES, "text/plain"):
        return RawDocument(label, index, url=url, problem="not_html", note=kind)
    charset = rest.partition("charset=")[2].strip(' "').lower()
    shape: Literal["html", "text"] = "text" if kind == "text/plain" else "html"
    problem = "" if body.strip() else "empty"
    return RawDocument(label, index, kind=shape, body=body, url=url, charset=charset, problem=problem)
