"""Web archives: WARC and WET through fastwarc, ARC by hand; a damaged record is counted and the next one found."""

from __future__ import annotations

import io
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

from causerie.data.raw import RawDocument

MAX_HEAD: Final = 65_536
GZIP_MEMBER: Final = b"\x1f\x8b\x08"
ENCODING: Final = "Content-Encoding"
HTML_TYPES: Final = ("text/html", "application/xhtml+xml")
MAX_BODY: Final = 50_000_000
"""Bytes of a record read at most; a longer one is counted as broken."""


def read_warc(path: Path, label: str) -> Iterator[RawDocument]:
    """Response, resource and conversion (WET) records of a WARC file as documents.

    A record that cannot be decompressed or parsed is yielded with the problem "broken_record"; reading goes on at
    the next gzip member that holds a WARC record (an uncompressed or one-member file ends there).
    """
    index, offset, counted = 0, 0, False
    while offset >= 0:
        last = -1
        try:
            for record in _records(path, offset):
                last = offset + int(record.stream_pos)
                document = _document(record, label, index)
                if document is not None:
                    yield document
                    index += 1
            return
        except (OSError, ValueError, EOFError) as error:
            if last >= 0 or not counted:  # else it is the record at which the reading before this one ended
                yield RawDocument(label, index, problem="broken_record", note=str(error)[:200])
                index += 1
            counted = last >= 0
        offset = _next_member(path, max(last, offset) + 1)


def _records(path: Path, offset: int) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
    with open(path, "rb") as file:
        file.seek(offset)
        yield from ArchiveIterator(cast(Any, _Tail(file)), record_types=wanted, quirks_mode=True)


class _Tail:
    """A file from its present position on, counted from zero; only `read` and `tell`, so that nothing seeks back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell() - self._start


def _next_member(path: Path, start: int) -> int:
    """Offset of the next gzip member that begins with a WARC header, or -1."""
    with open(path, "rb") as file:
        if file.read(3) != GZIP_MEMBER or start >= path.stat().st_size:
            return -1
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
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
    """The record as a document; None for records that are no documents (robots.txt, DNS answers)."""
    from fastwarc.warc import WarcRecordType

    url = record.headers.get("WARC-Target-URI") or ""
    url = url.strip("<> ")
    if url.startswith(("dns:", "metadata:", "screenshot:")):
        return None
    facts: dict[str, Any] = {"url": url, "license": record.headers.get("License") or ""}
    http = record.http_headers
    if http is not None and http.status_code is not None and http.status_code != 200:
        return RawDocument(label, index, problem="http_status", note=str(http.status_code), **facts)
    kind, charset = _content_type(record)
    if record.record_type == WarcRecordType.conversion or kind == "text/plain":
        facts["kind"] = "text"
    elif kind in HTML_TYPES or kind == "":
        facts["kind"] = "html"
    else:
        return RawDocument(label, index, problem="not_html", note=kind, **facts)
    try:
        body = decode_body(
            record.reader.read(MAX_BODY), _header(record, "Transfer-Encoding"), _header(record, ENCODING)
        )
    except (OSError, ValueError, EOFError) as error:
        return RawDocument(label, index, problem="broken_record", note=str(error)[:200], **facts)
    if kind == "" and facts["kind"] == "html" and b"<" not in body[:2000]:
        return RawDocument(label, index, problem="not_html", **facts)
    return RawDocument(label, index, body=body, charset=charset, problem="" if body.strip() else "empty", **facts)


def _header(record: Any, name: str) -> str:
    headers = record.http_headers
    return str((headers.get(name) or "") if headers is not None else "").strip().lower()


def decode_body(body: bytes, transfer: str, encoding: str) -> bytes:
    """Undo chunking and compression where the bytes really have them: many archives keep the header, not the form.

    Raises:
        ValueError: the body is compressed and damaged.
    """
    if transfer == "chunked":
        body = _join_chunks(body)
    try:
        if body[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(body, MAX_BODY)
        if encoding == "deflate" and b"<" not in body[:200]:
            raw = 15 if body[:1] == b"\x78" else -15
            return zlib.decompressobj(wbits=raw).decompress(body, MAX_BODY)
        if encoding == "br" and b"<" not in body[:200]:
            from fastwarc.stream_io import BrotliReader

            return bytes(BrotliReader(io.BytesIO(body)).read(MAX_BODY))
    except (zlib.error, OSError) as error:
        raise ValueError(f"damaged {encoding or 'gzip'} body: {error}") from error
    return body


def _join_chunks(body: bytes) -> bytes:
    parts: list[bytes] = []
    place = 0
    while place < len(body):
        end = body.find(b"\r\n", place, place + 80)
        try:
            size = int(body[place:end].split(b";")[0], 16) if end > place else -1
        except ValueError:
            size = -1
        if size < 0:
            return body if not parts else b"".join(parts)  # never chunked, or cut off
        if size == 0:
            break
        parts.append(body[end + 2 : end + 2 + size])
        place = end + 2 + size + 2
    return b"".join(parts)


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
                block = stream.read(min(int(fields[-1]), MAX_BODY))
                if fields[0].startswith(("filedesc:", "dns:")):
                    continue
                yield _arc_document(fields[0], block, label, index)
                index += 1
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        yield RawDocument(label, index, problem="broken_record", note=str(error)[:200])


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
