"""Packing and the loader: nothing lost, documents told apart, a pure function of seed and step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from causerie.core import Artifact, CauserieError, write_artifact
from causerie.data import PackConfig, TokenBatches, pack


class Bytes:
    """A tokenizer of bytes: id = byte + 1, document token 0."""

    vocab_size = 257
    eot_id = 0

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[byte + 1 for byte in text.encode()] for text in texts]


TEXTS = [f"Document {number}: " + "é" * (number % 17) + "x" * (number * 7 % 90) for number in range(120)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    with write_artifact(tmp_path, "corpus", "c", "a" * 64) as draft:
        lines = "".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(TEXTS))
        (draft.path / "documents.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
        draft.metrics["documents_kept"] = len(TEXTS)
    assert draft.artifact is not None
    return draft.artifact.path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    return folder


def packed(corpus: Path, tokenizer: Path, workspace: Path, **values: object) -> Artifact:
    return pack(PackConfig(corpus, tokenizer, **values), workspace, Bytes())  # type: ignore[arg-type]


def read(folder: Path, name: str) -> list[str]:
    tokens = np.fromfile(folder / f"{name}.bin", "<u2")
    starts = np.load(folder / f"{name}.idx.npy", allow_pickle=False)
    assert starts.dtype == np.uint64
    parts = np.split(tokens, starts.astype(np.int64)[1:])
    assert all(part[0] == 0 for part in parts)
    return [bytes((part[1:] - 1).astype(np.uint8)).decode() for part in parts]


def test_every_document_is_in_one_split(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = packed(corpus, tokenizer, tmp_path, val_fraction=0.1, shard_tokens=1500)
    names = sorted(path.stem for path in made.path.glob("train-*.bin"))
    assert len(names) > 2
    train = [text for name in names for text in read(made.path, name)]
    held = read(made.path, "val")
    assert sorted([*train, *held]) == sorted(TEXTS)
    assert not {*train} & {*held}
    metrics = made.manifest.metrics
    assert metrics["train_documents"] == len(train)
    assert metrics["val_bytes"] == sum(len(text.encode()) for text in held)
    assert metrics["train_tokens"] == sum(len(text.encode()) + 1 for text in train)
    assert packed(corpus, tokenizer, tmp_path, val_fraction=0.1, shard_tokens=1500).manifest == made.manifest


def test_windows_cover_the_stream_once_an_epoch(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = packed(corpus, tokenizer, tmp_path, shard_tokens=1500)
    loader = TokenBatches(made.path, batch_size=5, seq_len=32, seed=3)
    rows = np.concatenate([loader.batch(step).tokens for step in range(loader.steps_per_epoch)])[: loader.windows]
    streams = [np.fromfile(path, "<u2") for path in sorted(made.path.glob("train-*.bin"))]
    expected = [s[i : i + 33] for s in streams for i in range(0, (len(s) - 1) // 32 * 32, 32)]
    assert sorted(map(bytes, rows.astype("<u2"))) == sorted(map(bytes, expected))


def test_documents_are_told_apart(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = packed(corpus, tokenizer, tmp_path)
    loader = TokenBatches(made.path, batch_size=8, seq_len=48, seed=0)
    batch = loader.batch(2)
    assert (batch.tokens.dtype, batch.doc_ids.dtype, batch.positions.dtype) == (np.int64, np.int32, np.int32)
    assert batch.tokens.shape == batch.doc_ids.shape == batch.positions.shape == (8, 49)
    begins = batch.tokens == 0
    begins[:, 0] = False
    steps = np.diff(batch.doc_ids, axis=1)
    assert (batch.doc_ids[:, 0] == 0).all()
    np.testing.assert_array_equal(steps, begins[:, 1:])  # the number changes exactly where a document begins
    assert (batch.positions[:, 0] == 0).all()
    expected = np.where(begins[:, 1:], 0, batch.positions[:, :-1] + 1)
    np.testing.assert_array_equal(batch.positions[:, 1:], expected)


def test_batches_are_a_function_of_seed_and_step(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = packed(corpus, tokenizer, tmp_path)

    def fresh(seed: int = 1) -> TokenBatches:
        return TokenBatches(made.path, batch_size=4, seq_len=32, seed=seed)

    walked = fresh()
    steps = walked.steps_per_epoch + 3
    in_order = [walked.batch(step).tokens for step in range(steps)]
    for step in (steps - 1, 0, 5, walked.steps_per_epoch):
        np.testing.assert_array_equal(fresh().batch(step).tokens, in_order[step])
    assert not np.array_equal(fresh(2).batch(0).tokens, in_order[0])
    assert not np.array_equal(in_order[0], in_order[walked.steps_per_epoch])
    assert fresh().fingerprint == walked.fingerprint != fresh(2).fingerprint


def test_validation_is_in_the_order_of_the_file(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = packed(corpus, tokenizer, tmp_path, val_fraction=0.2)
    loader = TokenBatches(made.path, batch_size=2, seq_len=16, seed=9, split="val")
    stream = np.fromfile(made.path / "val.bin", "<u2")
    np.testing.assert_array_equal(loader.batch(0).tokens[1], stream[16:33])


def test_bad_input(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = packed(corpus, tokenizer, tmp_path)
    for change, code in (({"seq_len": 10**6}, "CAU-2008"), ({"batch_size": 0}, "CAU-2003")):
        with pytest.raises(CauserieError) as caught:
            TokenBatches(made.path, **{"batch_size": 2, "seq_len": 8, "seed": 0, **change})
        assert caught.value.code == code
    with pytest.raises(CauserieError, match="share below 1"):
        packed(corpus, tokenizer, tmp_path, val_fraction=1.0)
    with pytest.raises(CauserieError, match="held out"):
        packed(corpus, tokenizer, tmp_path, val_fraction=1e-9)
    with pytest.raises(CauserieError, match=r"no tokenizer\.json"):
        packed(corpus, tmp_path, tmp_path)


def test_with_the_real_tokenizer(corpus: Path, tmp_path: Path) -> None:
    text = pytest.importorskip("causerie.text")
    tokenizer = text.train_bpe(TEXTS, 300)
    tokenizer.save(tmp_path / "bpe")
    made = pack(PackConfig(corpus, tmp_path / "bpe", val_fraction=0.1), tmp_path)
    tokens = np.fromfile(made.path / "val.bin", "<u2")
    starts = np.load(made.path / "val.idx.npy", allow_pickle=False)
    assert (tokens[starts.astype(np.int64)] == tokenizer.eot_id).all()
    size = sum(len(tokenizer.decode_bytes(part[1:].tolist())) for part in np.split(tokens, starts.astype(np.int64)[1:]))
    assert size == made.manifest.metrics["val_bytes"]


def test_each_epoch_holds_the_same_rows_in_an_order_of_its_own(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = packed(corpus, tokenizer, tmp_path)
    loader = TokenBatches(made.path, batch_size=1, seq_len=32, seed=1)
    assert loader.windows > 20
    epochs = [
        [loader.batch(epoch * loader.windows + row).tokens.tobytes() for row in range(loader.windows)]
        for epoch in range(3)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
