"""Where an address went, and shards without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from causerie.core import Artifact, CauserieError, open_artifact
from causerie.data import (
    DataBuildConfig,
    PackConfig,
    RemoveConfig,
    TokenBatches,
    TraceConfig,
    build,
    pack,
    read_ledger,
    remove,
    trace,
)
from causerie.data.addresses import normal_url
from causerie.data.shard_files import read_index


class Bytes:
    """A tokenizer of bytes: id = byte + 1, document token 0."""

    vocab_size = 257
    eot_id = 0

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[byte + 1 for byte in text.encode()] for text in texts]


@pytest.fixture
def shards(small_warc: Path, tmp_path: Path) -> Artifact:
    made = build(DataBuildConfig(sources=(str(small_warc),), workers=1), tmp_path)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.json").write_text("{}")
    return pack(PackConfig(made.path, tmp_path / "t", val_fraction=0.3, shard_tokens=2000), tmp_path, Bytes())


def text_at(place: dict) -> str:
    tokens = np.fromfile(Path(place["shards"]) / place["file"], "<u2")[place["start"] :][: place["tokens"]]
    assert tokens[0] == 0
    return bytes((tokens[1:] - 1).astype(np.uint8)).decode()


def test_a_page_is_found_with_its_tokens(shards: Artifact, tmp_path: Path, make_prose) -> None:
    found = trace(TraceConfig("http://www.a.example/2/"), tmp_path)
    (row,) = found.ledger
    assert (row["id"], row["kept"]) == ("small.warc.gz#2", True)
    (place,) = found.shards
    assert make_prose(2).split("\n")[1] in text_at(place)
    assert trace(TraceConfig(place["id"]), tmp_path).shards == [place]


def test_a_copy_leads_to_the_document_that_stayed(shards: Artifact, tmp_path: Path, make_prose) -> None:
    found = trace(TraceConfig("https://copy.example/0"), tmp_path)
    assert found.ledger[0]["rule"] == "exact_duplicate"
    (place,) = found.shards
    assert place["url"] == "https://a.example/0"
    dropped = trace(TraceConfig("https://de.example"), tmp_path)
    assert (dropped.ledger[0]["rule"], dropped.shards) == ("language", [])
    with pytest.raises(CauserieError) as caught:
        trace(TraceConfig("https://nowhere.example/"), tmp_path)
    assert caught.value.code == "CAU-2010"


def test_shards_without_a_page_have_all_others(shards: Artifact, tmp_path: Path) -> None:
    listed = tmp_path / "gone.txt"
    listed.write_text("https://b.example/1\n\n")
    config = RemoveConfig(shards.path, ("https://a.example/2",), listed, out=tmp_path / "clean")
    made = remove(config, tmp_path)
    open_artifact(made.path, verify="digest")
    before = {row["url"]: text_at({"shards": shards.path, **row}) for row in read_index(shards.path).to_pylist()}
    after = {row["url"]: text_at({"shards": made.path, **row}) for row in read_index(made.path).to_pylist()}
    gone = {"https://a.example/2", "https://b.example/1"}
    assert after == {url: text for url, text in before.items() if url not in gone}
    assert made.manifest.config["removed"] == sorted(gone)
    assert made.manifest.inputs["shards"] == shards.key
    old, new = shards.manifest.metrics, made.manifest.metrics
    for of in ("tokens", "bytes", "documents"):
        assert new[f"train_{of}"] + new[f"val_{of}"] < old[f"train_{of}"] + old[f"val_{of}"]
    assert new["train_documents"] + new["val_documents"] == 7
    assert TokenBatches(made.path, batch_size=2, seq_len=16, seed=0).batch(0).tokens.shape == (2, 17)
    assert remove(config, tmp_path).manifest == made.manifest


def test_what_is_not_there_cannot_be_removed(shards: Artifact, tmp_path: Path) -> None:
    for urls, code in ((("https://nowhere.example/",), "CAU-2010"), ((), "CAU-2003")):
        with pytest.raises(CauserieError) as caught:
            remove(RemoveConfig(shards.path, urls), tmp_path)
        assert caught.value.code == code


def test_addresses_are_compared_without_what_does_not_matter() -> None:
    assert normal_url("HTTP://www.A.example/x/#part") == normal_url("https://a.example/x") == "a.example/x"
    assert normal_url("a.example/x?q=1") != normal_url("a.example/x")
    assert normal_url("http://a.example:8080/") == "a.example:8080"
    assert normal_url("file#12") == normal_url("file#12")


def test_a_page_on_the_list_leaves_nothing_in_a_build(small_warc: Path, tmp_path: Path, make_prose) -> None:
    (tmp_path / "gone.txt").write_text("http://a.example/0\n")
    made = build(DataBuildConfig(sources=(str(small_warc),), workers=1, without=tmp_path / "gone.txt"), tmp_path)
    rows = {row["url"]: row for row in read_ledger(made.path).to_pylist()}
    gone = rows["https://a.example/0"]
    assert (gone["rule"], gone["excerpt"], gone["title"], gone["bytes"]) == ("taken_out", "", "", 0)
    assert rows["https://copy.example/0"]["kept"]  # a copy at another address is another page, and is not listed
    with pytest.raises(CauserieError, match="No such file"):
        build(DataBuildConfig(sources=(str(small_warc),), without=tmp_path / "nowhere"), tmp_path)
