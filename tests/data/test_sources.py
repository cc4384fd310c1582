"""Sources: every kind is read, damage is counted and read past, nothing is split where it should not be."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from causerie.core import CauserieError, data_pack
from causerie.data import iter_documents
from causerie.data.sources import find_sources
from causerie.data.warc import decode_body


def problems(path: Path) -> list[str]:
    return [raw.problem for raw in iter_documents(path)]


def test_damage_in_the_middle_of_an_archive_is_counted_and_read_past(small_warc: Path) -> None:
    found = list(iter_documents(small_warc))
    assert [raw.problem for raw in found] == ["", "", "", "broken_record", *[""] * 8, "not_html", "http_status"]
    assert [raw.index for raw in found] == list(range(14))
    assert found[4].url == "https://a.example/3"
    assert b"<p>" in found[4].body


def test_two_damaged_neighbours_count_twice(tmp_path: Path, make_record) -> None:
    """Their headers can be read, their bodies cannot."""
    whole = [make_record(bytes(range(256)) * 64, f"https://x.example/{n}") for n in range(4)]
    for number in (1, 2):
        broken = bytearray(whole[number])
        broken[-8:-4] = b"\0\0\0\0"  # the checksum
        broken[len(broken) // 2 :: 2] = bytes(len(broken[len(broken) // 2 :: 2]))
        whole[number] = bytes(broken)
    path = tmp_path / "x.warc.gz"
    path.write_bytes(b"".join(whole))
    assert problems(path).count("") == 2
    assert problems(path).count("broken_record") == 2


def test_truncated_archive_keeps_what_is_whole(small_warc: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.warc.gz"
    cut.write_bytes(small_warc.read_bytes()[:2000])
    found = problems(cut)
    assert "" in found
    assert len(found) < 14


def test_uncompressed_and_plain_text_records(tmp_path: Path, make_record) -> None:
    path = tmp_path / "x.warc"
    records = (make_record(b"<p>hi", "https://x.example/"), make_record(b"hello", "https://x.example/t", "text/plain"))
    path.write_bytes(b"".join(map(gzip.decompress, records)))
    assert [(raw.kind, raw.body) for raw in iter_documents(path)] == [("html", b"<p>hi"), ("text", b"hello")]


@pytest.mark.parametrize(
    ("body", "transfer", "encoding", "expected"),
    [
        (b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n", "chunked", "", b"abcdefg"),
        (b"<!doctype html>", "chunked", "gzip", b"<!doctype html>"),
        (gzip.compress(b"<p>", mtime=0), "", "gzip", b"<p>"),
        (zlib.compress(b"<p>"), "", "deflate", b"<p>"),
        (zlib.compress(b"<p>")[2:-4], "", "deflate", b"<p>"),
    ],
)
def test_bodies_are_decoded_only_where_they_are_encoded(body: bytes, transfer: str, encoding: str, expected) -> None:
    assert decode_body(body, transfer, encoding) == expected


def test_jsonl_lines_end_with_newline_only(tmp_path: Path) -> None:
    texts = ["one\u2028two", "three\x85four\x0cfive"]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path = tmp_path / "x.jsonl.zst"
    window = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    path.write_bytes(zstandard.ZstdCompressor(compression_params=window).compress(lines.encode()))
    assert [raw.body.decode() for raw in iter_documents(path)] == texts


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"a"}\n[1]\n{"text"\n\xff\n\n{"other":1}\n{"html":"<p>b","url":"u"}\n')
    found = [(raw.kind, raw.body, raw.problem) for raw in iter_documents(path)]
    assert [problem for _, _, problem in found] == ["", *["broken_record"] * 3, "empty", ""]
    assert found[0][:2] == ("text", b"a")
    assert found[-1][:2] == ("html", b"<p>b")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_cut_off_jsonl_keeps_its_first_lines(tmp_path: Path, suffix: str) -> None:
    text = "".join(json.dumps({"text": f"{n} " + "x" * 50}) + "\n" for n in range(9_000)).encode()
    packed = gzip.compress(text) if suffix == ".gz" else zstandard.ZstdCompressor().compress(text)
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    found = problems(path)
    assert found[0] == ""
    assert found.count("broken_record") == (1 if suffix == ".gz" else found.count("broken_record"))
    assert 1 < len(found) < 9_000


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a", None, "c"], "url": ["u", "v", None], "n": [1, 2, 3]}), path)
    assert [(raw.body, raw.url, raw.problem) for raw in iter_documents(path)] == [
        (b"a", "u", ""),
        (b"", "v", "empty"),
        (b"c", "", ""),
    ]
    path.write_bytes(path.read_bytes()[:-20])
    assert problems(path) == ["broken_record"]


def test_folders_globs_and_labels(tmp_path: Path) -> None:
    for name in ("b/page.html", "a/page.html", "a/note.md", "a/skipped.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    files = find_sources((str(tmp_path), str(tmp_path / "*/*.md")), tmp_path / "spool")
    assert [(file.label, file.kind) for file in files] == [
        ("note.md", "text"),
        ("a/page.html", "html"),
        ("b/page.html", "html"),
    ]


def test_kind_by_content_and_unknown_kind(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gzip.compress(b'{"text": "hello"}\n'))
    assert [raw.body for raw in iter_documents(tmp_path / "x")] == [b"hello"]
    (tmp_path / "y.bin").write_bytes(b"\x00\x01\x02")
    with pytest.raises(CauserieError, match="no kind"):
        list(iter_documents(tmp_path / "y.bin"))


def test_standard_input_is_kept_for_a_second_start(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from causerie.data.sources import find_sources, iter_documents\n"
        "(f,) = find_sources(('-',), Path(sys.argv[1])); print([r.body for r in iter_documents(f.path)])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, input=b'{"text":"from stdin"}\n', capture_output=True, check=True)
    assert b"from stdin" in done.stdout


def test_arc_says_the_same_as_warc() -> None:
    """The pack has one crawl in both forms."""
    folder = data_pack()
    if folder is None:
        pytest.skip("the larger data pack is not here")
    real = folder / "warc" / "real"
    arc, warc = (list(iter_documents(real / f"aut-example.{kind}.gz")) for kind in ("arc", "warc"))
    assert [(raw.url, raw.kind, raw.problem) for raw in arc] == [(raw.url, raw.kind, raw.problem) for raw in warc]
    assert sum(a.body == w.body for a, w in zip(arc, warc, strict=True)) == len(arc)


def test_zstd_in_many_frames(tmp_path: Path) -> None:
    packed = io.BytesIO()
    for word in ("one", "two"):
        packed.write(zstandard.ZstdCompressor().compress(json.dumps({"text": word}).encode() + b"\n"))
    (tmp_path / "x.jsonl.zst").write_bytes(packed.getvalue())
    assert [raw.body for raw in iter_documents(tmp_path / "x.jsonl.zst")] == [b"one", b"two"]
