"""Training: deterministic, from every kind of source, as an artifact."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from causerie.core import CauserieError, open_artifact
from causerie.text import TokenizerConfig, load_tokenizer, train_bpe, train_tokenizer
from causerie.text.bytelevel import merge_of
from causerie.text.sources import interleave, iter_texts, source_files


def test_the_same_texts_give_the_same_merges(texts: tuple[str, ...]) -> None:
    first, second = (train_bpe(iter(texts * 2), 600) for _ in range(2))
    assert json.dumps(first.definition) == json.dumps(second.definition)
    assert json.dumps(train_bpe(texts[:2] * 2, 600).definition) != json.dumps(first.definition)


def test_the_commonest_pair_is_merged_first() -> None:
    tokenizer = train_bpe(["abab"] * 3, 256 + 16 + 2)
    assert [tokenizer.token_bytes(256), tokenizer.token_bytes(257)] == [b"ab", b"abab"]


def test_merges_are_recovered_from_ranks() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"abab": 257, b"cabab": 258}
    assert merge_of(b"cabab", ranks) == (b"c", b"abab")
    assert merge_of(b"ab", ranks) == (b"a", b"b")


@pytest.mark.parametrize("size", [271, 2**20 + 1, 0, -1])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(CauserieError) as caught:
        train_bpe(["text"], size)
    assert caught.value.code == "CAU-1202"


def test_no_text_is_refused() -> None:
    with pytest.raises(CauserieError) as caught:
        train_bpe(["", ""], 300)
    assert caught.value.code == "CAU-1203"


def write_sources(folder: Path) -> None:
    (folder / "plain.txt").write_text("un texte simple", encoding="utf-8")
    rows = ['{"text": "ligne un", "id": 1}', "", '{"messages": [{"role": "user", "content": "bonjour"}]}']
    content = "\n".join(rows).encode() + b"\n"
    (folder / "rows.jsonl").write_bytes(content)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(content))
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(content))
    (folder / "picture.png").write_bytes(b"\x89PNG")


def test_every_kind_of_source_is_read(tmp_path: Path) -> None:
    write_sources(tmp_path)
    files = source_files([str(tmp_path)])
    assert [file.name for file in files] == ["plain.txt", "rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst"]
    for file in files[1:]:
        assert list(iter_texts(file)) == ["ligne un", "bonjour"]
    assert source_files([str(tmp_path / "*.jsonl"), str(tmp_path / "rows.jsonl")]) == [tmp_path / "rows.jsonl"]


def test_sources_are_taken_in_turn_up_to_a_size(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name * 10}"}}\n' * 5, encoding="utf-8")
    files = source_files([str(tmp_path)])
    assert list(interleave(files, 25)) == ["a" * 10, "b" * 10, "a" * 10]
    assert len(list(interleave(files, 0))) == 10


@pytest.mark.parametrize("line", ["{", '{"no": "text"}', "[1]", "[" * 100_000])
def test_a_bad_row_is_named_by_line(line: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "ok"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(CauserieError) as caught:
        list(iter_texts(file))
    assert (caught.value.code, caught.value.where) == ("CAU-1203", f"{file}:2")


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(CauserieError) as caught:
        source_files([str(tmp_path / "nothing-*.txt")])
    assert caught.value.code == "CAU-1203"
    assert "nothing-" in caught.value.where


def test_a_corpus_folder_is_read_by_its_documents(tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "un document"}\n'))
    (tmp_path / "notes.txt").write_text("not a document", encoding="utf-8")
    assert source_files([str(tmp_path)]) == [tmp_path / "documents.jsonl.zst"]


def test_the_artifact_is_made_once_and_measures_itself(workspace: Path, tmp_path: Path, texts: tuple[str, ...]) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 3), encoding="utf-8")
    config = TokenizerConfig(sources=(str(source),), vocab_size=450, name="petit")
    artifact = train_tokenizer(config, workspace)
    assert artifact.path.parent == workspace / "tokenizer"
    metrics = artifact.manifest.metrics
    assert metrics["vocab_size"] == 450
    assert metrics["train_bytes"] == sum(len(text.encode()) for text in texts * 3)
    counted = sum(len(load_tokenizer(artifact.path).encode(text)) for text in texts * 3)
    assert metrics["bytes_per_token"] == pytest.approx(metrics["train_bytes"] / counted, abs=1e-4)
    before = artifact.file("tokenizer.json").stat().st_mtime_ns
    assert train_tokenizer(config, workspace).file("tokenizer.json").stat().st_mtime_ns == before
    source.write_text('{"text": "autre"}\n' * 9, encoding="utf-8")
    assert train_tokenizer(config, workspace).key != artifact.key


def test_out_names_the_exact_folder_and_too_little_text_is_said(workspace: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "out"
    source.write_text("petit texte", encoding="utf-8")
    config = TokenizerConfig(sources=(str(source),), vocab_size=5000, out=out)
    artifact = train_tokenizer(config, workspace)
    assert artifact.path == out
    assert open_artifact(out, verify="digest").manifest.notices
    assert artifact.manifest.metrics["vocab_size"] < 5000
    assert train_tokenizer(config, workspace).manifest.created == artifact.manifest.created
