"""Archives that other programs wrote (warcio, FastWARC's own writer): the same bytes come back, damage is counted."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import brotli
import pytest
import zstandard
from fastwarc.stream_io import GzipWriter, Lz4Writer, ZstdWriter
from fastwarc.warc import WarcRecord, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.data import RawDocument, iter_documents
from causerie.data.bodies import decode_body
from causerie.data.extract import decode_html

WARCIO = Path(__file__).parent / "fixtures" / "warcio.warc.gz"
PACKED = {"": None, ".gz": GzipWriter, ".lz4": Lz4Writer, ".zst": ZstdWriter}
PAGES = st.binary(min_size=1, max_size=3_000).map(lambda noise: b"<p>" + noise.replace(b"WARC/1.", b"warc"))


def fastwarc_record(body: bytes, url: str, kind: str = "text/html") -> bytes:
    """A response record as FastWARC writes it, with block digests."""
    record = WarcRecord()
    record.init_headers(WarcRecordType.response)
    record.headers["WARC-Target-URI"] = url
    record.headers["Content-Type"] = "application/http; msgtype=response"
    record.set_bytes_content(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + body)
    written = io.BytesIO()
    record.write(written, checksum_data=True)
    return written.getvalue()


def archive(folder: Path, bodies: list[bytes], suffix: str) -> Path:
    """Records one after the other, each in a member or frame of its own."""
    packed = b""
    for number, body in enumerate(bodies):
        record = fastwarc_record(body, f"https://x.example/{number}")
        if PACKED[suffix] is not None:
            writer = PACKED[suffix](str(folder / "packed"))
            writer.write(record)
            writer.close()
            record = (folder / "packed").read_bytes()
        packed += record
    path = folder / f"a.warc{suffix}"
    path.write_bytes(packed)
    return path


def test_every_record_of_warcio_is_read_as_it_was_written() -> None:
    found = list(iter_documents(WARCIO))
    told = [(raw.url.rpartition("/")[2], raw.kind, raw.problem) for raw in found]
    assert told == [
        *(("a", "html", ""), ("b", "html", ""), ("c", "html", ""), ("d", "text", "http_status"), ("e", "text", "")),
        *(("f", "text", ""), ("a", "text", "revisit"), ("g", "html", ""), ("h.pdf", "text", "not_html")),
    ]
    assert [raw.index for raw in found] == list(range(9))
    for number, raw in ((1, found[0]), (2, found[1]), (3, found[2]), (5, found[7])):
        shown = decode_html(raw.body, raw.charset or None)
        assert shown.startswith(f"<html lang=en><title>Page {number}</title>")
        assert f"Text of page {number}, été, " in shown
    assert b"x" * 300 in found[1].body  # joined from chunks
    assert found[4].body == b"A plain resource."
    assert (found[3].note, found[6].note, found[8].note) == ("301", "2024-05-05T00:00:00Z", "application/pdf")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_warcio_archive_that_was_cut_off_keeps_its_whole_records_and_says_so(tmp_path: Path, kept: float) -> None:
    whole = list(iter_documents(WARCIO, "x"))
    content = WARCIO.read_bytes()
    (tmp_path / "x.warc.gz").write_bytes(content[: int(kept * len(content))])
    found = list(iter_documents(tmp_path / "x.warc.gz", "x"))
    good = [raw for raw in found if raw.problem != "broken_record"]
    assert good == whole[: len(good)]
    assert len(found) == len(good) + 1


@pytest.mark.parametrize("suffix", PACKED)
@settings(max_examples=25)
@given(bodies=st.lists(PAGES, min_size=1, max_size=6))
def test_what_fastwarc_writes_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, bodies: list[bytes]
) -> None:
    path = archive(tmp_path_factory.mktemp("a"), bodies, suffix)
    assert [(raw.url, raw.body) for raw in iter_documents(path)] == [
        (f"https://x.example/{number}", body) for number, body in enumerate(bodies)
    ]


@settings(max_examples=60)
@given(damage=st.integers(0, 10**6), length=st.integers(1, 400), seed=st.integers(0, 5))
def test_damage_anywhere_loses_no_record_beyond_its_neighbours_and_never_a_count(
    tmp_path_factory: pytest.TempPathFactory, damage: int, length: int, seed: int
) -> None:
    """Zero bytes over part of an archive of 8: those that it does not touch are there, and what it touches is told."""
    bodies = [f"<p>page {number} {seed} ".encode() * 40 + bytes(range(32, 120)) for number in range(8)]
    members = [gzip.compress(fastwarc_record(body, f"https://x.example/{n}"), mtime=0) for n, body in enumerate(bodies)]
    content = bytearray(b"".join(members))
    start = damage % len(content)
    content[start : start + length] = bytes(len(content[start : start + length]))
    edges = [sum(map(len, members[:number])) for number in range(9)]
    touched = {n for n in range(8) if edges[n] < start + length and start < edges[n + 1]}
    path = tmp_path_factory.mktemp("a") / "x.warc.gz"
    path.write_bytes(content)
    found = list(iter_documents(path))
    whole = {raw.url: raw.body for raw in found if not raw.problem}
    for number in set(range(8)) - touched:
        assert whole.get(f"https://x.example/{number}") == bodies[number], (number, touched)
    told = [raw for raw in found if raw.problem]
    lost = [n for n in touched if f"https://x.example/{n}" not in whole]
    assert bool(told) >= bool(lost)
    assert [raw.index for raw in found] == list(range(len(found)))


@settings(max_examples=80)
@given(
    body=st.binary(max_size=2_000).map(lambda noise: b"<" + noise),
    cuts=st.lists(st.integers(1, 300), max_size=8),
    coding=st.sampled_from(["", "gzip", "deflate", "br", "zstd"]),
)
def test_chunked_and_compressed_bodies_come_back(body: bytes, cuts: list[int], coding: str) -> None:
    import zlib

    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}
    sent = pack[coding](body) if coding else body
    pieces, place = [], 0
    for size in [*cuts, len(sent)]:
        if piece := sent[place : place + size]:
            pieces.append(f"{len(piece):X};name=value\r\n".encode() + piece + b"\r\n")
        place += size
    chunked = b"".join(pieces) + b"0\r\nTrailer: x\r\n\r\n"
    assert decode_body(chunked, "chunked", coding) == body


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "br"])
def test_no_beginning_of_a_compressed_body_passes_for_the_whole(coding: str) -> None:
    import zlib

    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}
    sent = pack[coding](bytes(range(97, 123)) * 30)
    for length in range(8, len(sent)):
        with pytest.raises(ValueError, match="damaged"):
            decode_body(sent[:length], "", coding)


def arc(*documents: tuple[str, bytes]) -> bytes:
    """An ARC 1.0 file after the Internet Archive's description of 1996."""
    head = b"1 0 InternetArchive\nURL IP-address Archive-date Content-type Archive-length\n"
    parts = [b"filedesc://x.arc 0.0.0.0 19960923142103 text/plain %d\n%s\n" % (len(head), head)]
    for url, block in documents:
        parts.append(f"{url} 127.0.0.1 19961104142103 text/html {len(block)}\n".encode() + block + b"\n")
    return b"".join(parts)


def answer(body: bytes, status: str = "200 OK", kind: str = "text/html", end: bytes = b"\r\n") -> bytes:
    return end.join((f"HTTP/1.0 {status}".encode(), f"Content-Type: {kind}".encode(), b"", b"")) + body


@pytest.mark.parametrize("packed", [False, True])
def test_arc_files_after_their_description(tmp_path: Path, packed: bool) -> None:
    content = arc(
        ("http://a.example/1", answer(b"<p>one")),
        ("http://a.example/2", answer(b"<p>two", end=b"\n")),
        ("http://a.example/3", answer(b"gone", "404 Not Found")),
        ("http://a.example/4", answer(b"GIF89a", kind="image/gif")),
        ("http://a.example/5", answer("dit été".encode("latin-1"), kind='text/plain; charset="ISO-8859-1"')),
        ("dns:a.example", b"20000101000000\na.example. 1 IN A 127.0.0.1\n"),
    )
    path = tmp_path / ("x.arc.gz" if packed else "x.arc")
    path.write_bytes(gzip.compress(content) if packed else content)
    found = list(iter_documents(path))
    assert [(raw.kind, raw.body, raw.problem, raw.note) for raw in found] == [
        ("html", b"<p>one", "", ""),
        ("html", b"<p>two", "", ""),
        ("text", b"", "http_status", "404"),
        ("text", b"", "not_html", "image/gif"),
        ("text", "dit été".encode("latin-1"), "", ""),
    ]
    assert found[-1].charset == "iso-8859-1"
    path.write_bytes(path.read_bytes()[:-40])
    assert [raw.problem for raw in iter_documents(path)][-1] == "broken_record"


@settings(max_examples=60)
@given(
    noise=st.binary(max_size=400),
    name=st.sampled_from(["x.warc", "x.warc.gz", "x.arc", "x.jsonl", "x.parquet", "x.html"]),
)
def test_noise_under_any_name_is_documents_or_problems_and_never_more(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("n") / name
    path.write_bytes(noise)
    found = list(iter_documents(path))
    assert found
    assert all(isinstance(raw, RawDocument) and (raw.problem or raw.body) for raw in found)
