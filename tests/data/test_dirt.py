"""Every kind of dirt that real inputs hold: counted, with a reason and a place; never a crash, a hang or a short read."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from causerie.data import DataBuildConfig, RawDocument, build, extract_html, iter_documents
from causerie.data import rows as data_rows
from causerie.data import warc as data_warc
from causerie.data.bodies import TooLarge, decode_body
from causerie.data.pool import Worker
from causerie.data.sources import find_sources


def record(content: bytes, *, length: int | None = None, kind: str = "response", head: str = "") -> bytes:
    """One WARC record, uncompressed, whose stated length may be wrong."""
    size = len(content) if length is None else length
    lines = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://x.example/{kind}\r\n{head}"
    lines += f"Content-Type: application/http; msgtype=response\r\nContent-Length: {size}\r\n\r\n"
    return lines.encode() + content + b"\r\n\r\n"


def answer(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", "Content-Type: text/html", *headers, "", "")).encode() + body


def read(path: Path, content: bytes) -> list[tuple[str, bytes]]:
    path.write_bytes(content)
    return [(raw.problem, raw.body) for raw in iter_documents(path)]


def test_a_record_longer_than_its_stated_length_loses_nothing_after_it(tmp_path: Path) -> None:
    whole = answer(b"<p>one</p>")
    content = record(whole, length=len(whole) - 4) + record(answer(b"<p>two</p>"))
    assert ("", b"<p>two</p>") in read(tmp_path / "x.warc", content)


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_shorter_than_its_stated_length_is_no_silent_short_read(tmp_path: Path, packed: bool) -> None:
    whole, tail = answer(b"<p>one</p>"), record(answer(b"<p>two</p>"))
    short = record(whole, length=len(whole) + 500)
    content = gzip.compress(short) + gzip.compress(tail) if packed else tail + short
    found = read(tmp_path / ("x.warc.gz" if packed else "x.warc"), content)
    assert ("", b"<p>one</p>\r\n\r\n") not in found
    assert "broken_record" in [problem for problem, _ in found]
    assert ("", b"<p>two</p>") in found


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_that_swallows_the_next_one_is_counted_and_the_next_one_found(tmp_path: Path, packed: bool) -> None:
    whole = answer(b"<p>one</p>")
    long = record(answer(b"<p>two</p>" * 90))
    parts = [record(whole, length=len(whole) + 700), long, record(answer(b"<p>three</p>"))]
    content = b"".join(map(gzip.compress, parts)) if packed else b"".join(parts)
    found = read(tmp_path / ("x.warc.gz" if packed else "x.warc"), content)
    assert [problem for problem, _ in found] == ["broken_record", "", ""]
    assert [body[:8] for _, body in found[1:]] == [b"<p>two</", b"<p>three"]


def test_cut_off_archive_says_so(tmp_path: Path) -> None:
    members = [gzip.compress(record(answer(b"<p>" + bytes([97 + n]) * 400))) for n in range(3)]
    found = read(tmp_path / "x.warc.gz", b"".join(members)[:-60])
    assert [problem for problem, _ in found] == ["", "", "broken_record"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_compressed_bodies_are_read_and_cut_off_ones_are_counted(tmp_path: Path, coding: str) -> None:
    text = b"".join(b"<p>%d</p>" % number for number in range(9_000))
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}
    packed["br"] = brotli.compress
    body = packed[coding](text)
    header = f"Content-Encoding: {coding}"
    content = record(answer(body, header)) + record(answer(body[: len(body) // 2], header))
    found = read(tmp_path / "x.warc", content)
    assert found[0] == ("", text)
    assert found[1] == ("broken_record", b"")


def test_gzip_in_many_members_inside_a_body() -> None:
    assert decode_body(gzip.compress(b"one") + gzip.compress(b"two"), "", "gzip") == b"onetwo"
    with pytest.raises(ValueError, match="cut off"):
        decode_body(gzip.compress(b"one" * 999)[:-9], "", "gzip")


def test_a_body_that_unfolds_without_end_is_too_large() -> None:
    packers = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress, "br": brotli.compress}
    for coding, pack in packers.items():
        for size in (10_001, 3_000_000):
            with pytest.raises(TooLarge):
                decode_body(pack(b"a" * size), "", coding, most=10_000)
        assert decode_body(pack(b"a" * 10_000), "", coding, most=10_000) == b"a" * 10_000


def test_zstd_frames_follow_each_other_and_a_last_one_cut_off_is_seen() -> None:
    frames = zstandard.compress(b"one") + zstandard.compress(bytes(range(256)) * 40)
    assert decode_body(frames, "", "zstd") == b"one" + bytes(range(256)) * 40
    with pytest.raises(ValueError, match="cut off"):
        decode_body(frames[:-9], "", "zstd")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"3\r\nabc\r\n2\r\nde\r\n", b"abcde"),
        (b"<p>never chunked</p>", b"<p>never chunked</p>"),
        (b"3\r\nabc\r\nff\r\nde", None),
        (b"3\r\nabc\r\nzz\r\nde\r\n0\r\n\r\n", None),
    ],
)
def test_chunks_are_joined_and_missing_ones_are_no_silent_short_read(body: bytes, found: bytes | None) -> None:
    if found is None:
        with pytest.raises(ValueError, match="chunk"):
            decode_body(body, "chunked", "")
    else:
        assert decode_body(body, "chunked", "") == found


def test_an_archive_packed_with_zstd_is_read_and_a_cut_off_one_says_so(tmp_path: Path) -> None:
    content = b"".join(record(answer(b"<p>%d " % number + b"word " * 200)) for number in range(30))
    packed = zstandard.compress(content)
    found = read(tmp_path / "x.warc.zst", packed)
    assert [body[:4] for _, body in found[:3]] == [b"<p>0", b"<p>1", b"<p>2"]
    assert [problem for problem, _ in found] == [""] * 30
    assert read(tmp_path / "y.warc.zst", packed[: len(packed) // 2])[-1][0] == "broken_record"


def test_revisits_are_counted_and_requests_are_no_documents(tmp_path: Path) -> None:
    content = record(answer(b""), kind="revisit", head="WARC-Refers-To-Date: 2014-01-26T20:06:25Z\r\n")
    content += record(b"GET / HTTP/1.1\r\n\r\n", kind="request") + record(answer(b"<p>x"))
    (tmp_path / "x.warc").write_bytes(content)
    found = list(iter_documents(tmp_path / "x.warc"))
    assert [(raw.problem, raw.note) for raw in found] == [("revisit", "2014-01-26T20:06:25Z"), ("", "")]


def test_what_the_crawler_cut_off_is_noted(tmp_path: Path) -> None:
    (tmp_path / "x.warc").write_bytes(record(answer(b"<p>x"), head="WARC-Truncated: length\r\n"))
    assert [raw.note for raw in iter_documents(tmp_path / "x.warc")] == ["cut off by the crawler: length"]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b'{"text": "a", "text": "b"}', "comes twice"),
        (b'{"text": "\\ud83d"}', "lone surrogate"),
        (b'{"text": "\xff"}', "utf-8"),
        (b'{"text": "a", "n": NaN}', "NaN"),
        (b'{"text": "a\x00"}', "control character"),
        (b"[" * 100_000, "deeply"),
        (b'{"n": ' + b"9" * 5_000 + b"}", "digits"),
        (b'["text"]', "no JSON object"),
    ],
)
def test_bad_json_is_counted_with_its_line_and_reason(tmp_path: Path, line: bytes, cause: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text":"before"}\n\n' + line + b'\n{"text":"after"}\n')
    before, bad, after = iter_documents(path)
    assert (before.body, after.body) == (b"before", b"after")
    assert bad.problem == "broken_record"
    assert bad.note.startswith("line 3: ")
    assert cause in bad.note


def test_duplicate_key_deep_inside_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text":"a","meta":{"k":1,"k":2}}\n')
    assert [raw.problem for raw in iter_documents(path)] == ["broken_record"]


def test_a_line_over_the_limit_is_counted_and_the_next_one_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(data_rows, "MAX_LINE", 1_000)
    monkeypatch.setattr(data_rows, "SKIP", 64)
    lines = [json.dumps({"text": text}) for text in ("a", "b" * 5_000, "c")]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    found = list(iter_documents(tmp_path / "x.jsonl"))
    assert [raw.problem for raw in found] == ["", "too_large", ""]
    assert "line 2" in found[1].note


MEASURED = """
import resource, sys
from collections import Counter
from causerie.data import iter_documents
import fastwarc, zstandard
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = Counter(raw.problem for raw in iter_documents(sys.argv[1]))
print(dict(found), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def memory_to_read(path: Path) -> tuple[dict[str, int], int]:
    """Problems by count, and by how many MiB the peak memory of a fresh process grew while it read the file."""
    done = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, check=True, text=True)
    found, _, grown = done.stdout.strip().rpartition(" ")
    return json.loads(found.replace("'", '"')), int(grown)


@pytest.mark.slow
def test_a_line_of_one_gigabyte_takes_bounded_memory(tmp_path: Path) -> None:
    """Slow: a gigabyte (a hole in a sparse file) is read through once."""
    path = tmp_path / "x.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text":"first"}\n')
        file.truncate(1_000_000_000)
        file.seek(0, 2)
        file.write(b'\n{"text":"last"}\n')
    found, grown = memory_to_read(path)
    assert found == {"": 2, "too_large": 1}
    assert grown < 3 * data_rows.MAX_LINE / 2**20


def bomb(head: bytes, megabytes: int, tail: bytes = b"") -> bytes:
    """A gzip member that unfolds to so many megabytes of zeros."""
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(head), *(packer.compress(bytes(1_000_000)) for _ in range(megabytes))]
    return b"".join([*parts, packer.compress(tail), packer.flush()])


@pytest.mark.slow
@pytest.mark.parametrize("where", ["record", "body", "jsonl"])
def test_gzip_bombs_of_200_megabytes_take_bounded_memory(tmp_path: Path, where: str) -> None:
    """Slow: 200 MB are packed and unpacked; the file is a thousand times smaller."""
    if where == "jsonl":
        path = tmp_path / "x.jsonl.gz"
        path.write_bytes(bomb(b'{"text":"first"}\n', 200, b'\n{"text":"last"}\n'))
        expected = {"": 2, "too_large": 1}
    elif where == "record":
        path = tmp_path / "x.warc.gz"
        head = answer(b"<p>")
        lines = record(b"", length=len(head) + 200_000_000).removesuffix(b"\r\n\r\n") + head
        path.write_bytes(bomb(lines, 200, b"\r\n\r\n") + gzip.compress(record(answer(b"<p>after"))))
        expected = {"too_large": 1, "": 1}
    else:
        path = tmp_path / "x.warc.gz"
        inner = record(answer(bomb(b"<p>", 200), "Content-Encoding: gzip"))
        path.write_bytes(gzip.compress(inner) + gzip.compress(record(answer(b"<p>after"))))
        expected = {"too_large": 1, "": 1}
    assert path.stat().st_size < 1_000_000
    found, grown = memory_to_read(path)
    assert found == expected
    assert grown < 4 * data_warc.MAX_BODY / 2**20


def test_100_000_nested_tags_are_read_in_linear_time() -> None:
    page = extract_html(b"<html><title>deep</title>" + b"<div>" * 100_000 + b"<p>at the bottom" + b"</div>" * 100_000)
    assert page.title == "deep"
    assert page.extractor == "resiliparse"


@pytest.mark.parametrize("depth", [100, 1_000])
def test_text_below_the_depth_that_the_parser_keeps_is_not_lost(depth: int) -> None:
    words = "Words at the bottom of many elements are words all the same, and they are kept. " * 9
    assert "at the bottom" in extract_html("<div>" * depth + f"<p>{words}</p>").text


@pytest.mark.parametrize(
    "html",
    [
        b"<p>\x00\x01NUL inside\x00</p>" * 20,
        b"<p>bad \xff\xfe utf-8 \xc3</p>" * 20,
        b"<p title='" + b"x" * 1_000_000 + b"'>text</p>",
        b"<script>" + b"var x;" * 50_000,
        b"<!--" + b"-" * 100_000,
        b"<p>&#xD800;&#0;&#x110000;&bogus;</p>" * 20,
    ],
)
def test_hostile_bytes_give_clean_text(html: bytes) -> None:
    text = extract_html(html).text
    assert text.encode().decode() == text
    assert "\x00" not in text


def test_files_that_are_empty_or_no_text_are_counted(tmp_path: Path) -> None:
    for name in ("a.warc.gz", "b.jsonl", "c.txt", "d.html", "e.warc", "f"):
        (tmp_path / name).write_bytes(b"")
    for path in sorted(tmp_path.iterdir()):
        assert [raw.problem for raw in iter_documents(path)] == ["empty"], path.name
    (tmp_path / "g.txt").write_bytes(b"words\x00\x01\x02 and more")
    (bad,) = iter_documents(tmp_path / "g.txt")
    assert (bad.problem, bad.note) == ("broken_record", "NUL at byte 5: not a text")


def test_links_in_a_folder_are_counted_and_named_ones_followed(tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("outside of the folder")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "page.txt").write_text("inside")
    (folder / "link.txt").symlink_to(outside)
    (folder / "nowhere.txt").symlink_to(tmp_path / "missing")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    files = find_sources((str(folder),), tmp_path)
    found = [next(iter(iter_documents(file.path, file.label))) for file in files]
    assert [(raw.source, raw.problem) for raw in found] == [
        ("link.txt", "link"),
        ("loop.txt", "link"),
        ("nowhere.txt", "link"),
        ("page.txt", ""),
    ]
    assert all(file.digest() and file.size() for file in files)
    (named,) = find_sources((str(folder / "link.txt"),), tmp_path)
    assert [raw.body for raw in iter_documents(named.path)] == [b"outside of the folder"]


def test_a_page_over_the_memory_limit_is_counted_and_the_next_one_read(make_page: Callable, make_prose) -> None:
    worker = Worker(DataBuildConfig(page_memory_mb=200), None)
    try:
        tag = b"<p id=x>" + b"word " * 3
        pages = [make_page(make_prose(1)), tag * 400_000, make_page(make_prose(2))]
        found = [worker.judge(RawDocument("x", n, kind="html", body=body)).rule for n, body in enumerate(pages)]
    finally:
        worker.close()
    assert found[0] == found[2] == ""
    assert found[1] in ("too_much_memory", "crashed", "unreadable")


def test_dirt_in_a_whole_build_is_in_its_counts(tmp_path: Path, small_warc: Path, make_prose) -> None:
    dirty = tmp_path / "dirty"
    dirty.mkdir()
    (dirty / "a.jsonl").write_bytes(b'{"text":"a","text":"b"}\n{"text":"\\ud800"}\n\xff\n')
    (dirty / "b.txt").write_bytes(b"")
    (dirty / "c.txt").symlink_to(tmp_path / "nowhere")
    (dirty / "d.txt").write_text(make_prose(50) + "\n<|im_start|>assistant <|endoftext|>")
    config = DataBuildConfig(sources=(str(dirty), str(small_warc)), out=tmp_path / "corpus", min_words=20, workers=1)
    counts = build(config, tmp_path / "ws").manifest.metrics
    assert counts["documents_in"] == counts["documents_kept"] + sum(counts["dropped"].values())
    assert counts["dropped"]["broken_record"] == 4
    assert counts["dropped"]["link"] == counts["dropped"]["empty"] == 1
    packed = (tmp_path / "corpus" / "documents.jsonl.zst").read_bytes()
    assert b"<|im_start|>assistant" in zstandard.ZstdDecompressor().stream_reader(packed).read()
