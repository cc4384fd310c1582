"""Packed files as streams: equal bytes whatever the packing, in any number of pieces; a cut off end is never silent."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import BROKEN_STREAM, CauserieError, numbered_jsonl, open_stream, read_jsonl

PACKERS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}


@pytest.mark.parametrize("packer", ["gzip", "zstd"])
@settings(max_examples=40)
@given(pieces=st.lists(st.binary(max_size=400), max_size=5))
def test_any_number_of_members_or_frames_is_one_stream(
    tmp_path_factory: pytest.TempPathFactory, packer: str, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("s") / "x"
    path.write_bytes(b"".join(map(PACKERS[packer], pieces)))
    with open_stream(path) as stream:
        assert stream.read() == b"".join(pieces)


@pytest.mark.parametrize("packer", ["gzip", "zstd"])
def test_no_beginning_of_a_packed_file_passes_for_the_whole(tmp_path: Path, packer: str) -> None:
    rows = [{"n": number, "text": os.urandom(20).hex()} for number in range(60)]
    whole = PACKERS[packer]("".join(json.dumps(row) + "\n" for row in rows).encode())
    path = tmp_path / "x.jsonl"
    for length in {*range(6, len(whole), 97), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(BROKEN_STREAM), open_stream(path) as stream:
            stream.read()
        found = []
        with pytest.raises(CauserieError, match="breaks off") as caught:
            found.extend(row for row in numbered_jsonl(path))
        assert caught.value.code == "CAU-1006"
        assert caught.value.where == f"{path}:{len(found) + 1}"
    path.write_bytes(whole)
    assert list(numbered_jsonl(path)) == list(enumerate(rows, 1))


@pytest.mark.parametrize("packer", ["gzip", "zstd"])
def test_damage_inside_is_told(tmp_path: Path, packer: str) -> None:
    whole = bytearray(PACKERS[packer](os.urandom(20_000).hex().encode()))
    whole[len(whole) // 2 : len(whole) // 2 + 80] = bytes(80)
    (tmp_path / "x").write_bytes(whole)
    with pytest.raises(BROKEN_STREAM), open_stream(tmp_path / "x") as stream:
        stream.read()


@pytest.mark.parametrize("packer", PACKERS)
def test_lines_end_with_newline_only_and_empty_ones_count(tmp_path: Path, packer: str) -> None:
    text = '{"a": "x\u2028y\x85z"}\n\n{"a": "\\u000c"}\r\n   \n{"a": 1}'
    (tmp_path / "x").write_bytes(PACKERS[packer](text.encode()))
    assert list(numbered_jsonl(tmp_path / "x")) == [(1, {"a": "x\u2028y\x85z"}), (3, {"a": "\x0c"}), (5, {"a": 1})]
    assert list(read_jsonl(tmp_path / "x")) == [{"a": "x\u2028y\x85z"}, {"a": "\x0c"}, {"a": 1}]


@pytest.mark.parametrize("content", [b"", b"\x1f", b"\x28\xb5", b"no magic at all"])
def test_what_is_not_packed_comes_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gz").write_bytes(content)  # the name says nothing
    with open_stream(tmp_path / "x.gz") as stream:
        assert stream.read() == content


def test_other_packings_are_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "x.bz2").write_bytes(bz2.compress(b"{}\n"))
    with pytest.raises(CauserieError) as caught:
        list(numbered_jsonl(tmp_path / "x.bz2"))
    assert caught.value.where.endswith(":1")


@pytest.mark.parametrize("packer", PACKERS)
def test_the_file_below_is_closed(tmp_path: Path, packer: str) -> None:
    (tmp_path / "x").write_bytes(PACKERS[packer](b"words\n" * 9))
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(20):
            with open_stream(tmp_path / "x") as stream:
                stream.readline()
        assert len(os.listdir("/proc/self/fd")) == before


GROWTH = """
import resource, sys
from pathlib import Path
import pyarrow
from causerie.core import open_stream
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = 0
with open_stream(Path(sys.argv[1])) as stream:
    while piece := stream.read(1 << 16):
        size += len(piece)
print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("packer", ["gzip", "zstd"])
def test_a_file_that_unfolds_a_thousandfold_takes_little_memory(tmp_path: Path, packer: str) -> None:
    (tmp_path / "x").write_bytes(PACKERS[packer](bytes(150_000_000)))
    assert (tmp_path / "x").stat().st_size < 400_000
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    size, grown = map(int, done.stdout.split())
    assert size == 150_000_000
    assert grown < 60  # MiB
