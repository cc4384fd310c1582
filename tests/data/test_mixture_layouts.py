"""Mixtures and rows: weights exact at every row, best-fit rows whole and masked, ranks that read the same together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import Artifact, CauserieError, write_artifact
from causerie.data import PackConfig, TokenBatches, pack
from causerie.data.layouts import BestFit, Shard
from causerie.data.mixture import BLOCK, Schedule


class Bytes:
    """A tokenizer of bytes: id = byte + 1, document token 0."""

    vocab_size = 257
    eot_id = 0

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[byte + 1 for byte in text.encode()] for text in texts]


def corpus(folder: Path, name: str, letter: str, count: int, parts: bool = False) -> Path:
    texts = [letter * (5 + number * 7 % 90) + str(number) for number in range(count)]
    documents = [
        {"id": f"{name}#{n}", "text": text, "url": f"https://{name}.example/{n}", "source": name}
        for n, text in enumerate(texts)
    ]
    if parts:
        documents = [{**document, "part": number % 2} for number, document in enumerate(documents)]
    with write_artifact(folder, "corpus", name, letter.encode().hex() * 32) as draft:
        lines = "".join(json.dumps(document) + "\n" for document in documents)
        (draft.path / "documents.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
        draft.metrics |= {"documents_kept": count, "bytes_kept": sum(map(len, texts))}
        if parts:
            draft.metrics["mixture"] = [{"source": "x", "weight": 0.75}, {"source": "y", "weight": 0.25}]
    assert draft.artifact is not None
    return draft.artifact.path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    return tmp_path / "tokenizer"


@pytest.fixture
def mixed(tmp_path: Path, tokenizer: Path) -> Artifact:
    first, second = corpus(tmp_path, "one", "a", 80), corpus(tmp_path, "two", "b", 30)
    config = PackConfig(first, tokenizer, more=(second,), weights=(3.0, 1.0), shard_tokens=1500)
    return pack(config, tmp_path, Bytes())


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(0, 5 * BLOCK))
@settings(max_examples=60, deadline=None)
def test_weights_are_exact_after_every_row(weights: list[int], rows: int) -> None:
    given_ = Schedule(weights, 0).given(rows)
    assert sum(given_) == rows
    for count, weight in zip(given_, weights, strict=True):
        assert abs(count - rows * weight / sum(weights)) < 1


def test_schedule_gives_each_row_of_each_part_once_in_a_shuffled_order() -> None:
    schedule = Schedule([0.5, 0.3, 0.2], 1)
    places = [schedule.place(row) for row in range(3 * BLOCK)]
    for part, count in enumerate(schedule.given(3 * BLOCK)):
        assert sorted(number for p, number in places if p == part) == list(range(count))
    assert [p for p, _ in places[:BLOCK]] != [p for p, _ in places[BLOCK : 2 * BLOCK]]
    assert [Schedule([0.5, 0.3, 0.2], 1).place(row) for row in (2500, 7)] == [places[2500], places[7]]
    assert Schedule([1.0, 1e-9], 0).given(10**6) == [10**6, 0]


def test_a_mixture_of_corpora_is_read_by_its_weights(mixed: Artifact) -> None:
    loader = TokenBatches(mixed.path, batch_size=16, seq_len=32, seed=0)
    parts = np.concatenate([loader.batch(step).parts for step in range(64)])
    assert (parts == 0).sum() == 768  # 3/4 of 1,024 rows
    batch = loader.batch(5)
    letters = {0: ord("a") + 1, 1: ord("b") + 1}
    for part, tokens in zip(batch.parts, batch.tokens, strict=True):
        assert letters[1 - int(part)] not in tokens
    assert [part["name"] for part in mixed.manifest.config["parts"]] == ["one", "two"]
    other = TokenBatches(mixed.path, batch_size=16, seq_len=32, seed=0, weights=(1, 3))
    assert (np.concatenate([other.batch(step).parts for step in range(64)]) == 0).sum() == 256
    assert other.fingerprint != loader.fingerprint


def test_parts_of_one_corpus_and_of_two(tmp_path: Path, tokenizer: Path) -> None:
    parted = corpus(tmp_path, "parted", "c", 60, parts=True)
    alone = pack(PackConfig(parted, tokenizer), tmp_path, Bytes())
    assert [part["weight"] for part in alone.manifest.config["parts"]] == [0.75, 0.25]
    plain = corpus(tmp_path, "plain", "d", 60)
    both = pack(PackConfig(parted, tokenizer, more=(plain,), weights=(1.0, 1.0)), tmp_path, Bytes())
    assert [part["weight"] for part in both.manifest.config["parts"]] == [0.375, 0.125, 0.5]
    joined = pack(PackConfig(plain, tokenizer, more=(corpus(tmp_path, "last", "e", 9),)), tmp_path, Bytes())
    assert "parts" not in joined.manifest.config
    total = joined.manifest.metrics
    assert total["train_documents"] + total["val_documents"] == 69


@pytest.mark.parametrize("layout", ["stream", "rows"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_any_number_of_ranks_reads_the_same(mixed: Artifact, layout: str, ranks: int) -> None:
    def fresh() -> TokenBatches:
        return TokenBatches(mixed.path, batch_size=8, seq_len=24, seed=3, layout=layout)  # type: ignore[arg-type]

    whole = fresh().batch(17)
    for name in ("tokens", "doc_ids", "positions", "mask", "parts"):
        rows: list[np.ndarray] = [None] * 8  # type: ignore[list-item]
        for rank in range(ranks):
            mine = range(rank, 8, ranks)
            for row, value in zip(mine, getattr(fresh().batch(17, mine), name), strict=True):
                rows[row] = value
        np.testing.assert_array_equal(np.stack(rows), getattr(whole, name))


def shard(lengths: list[int]) -> Shard:
    """Documents of token 0 and then numbers that tell every token of the shard from every other."""
    starts = np.cumsum([0, *lengths[:-1]])
    tokens = np.arange(1, sum(lengths) + 1)
    tokens[starts] = 0
    return Shard(tokens.astype(np.uint32), starts.astype(np.uint64))


@given(st.lists(st.integers(1, 70), min_size=1, max_size=40), st.integers(4, 30))
@settings(max_examples=80, deadline=None)
def test_best_fit_rows_hold_every_target_once(lengths: list[int], seq_len: int) -> None:
    given_ = shard(lengths)
    layout = BestFit([given_], seq_len)
    targets: list[int] = []
    for window in range(layout.windows):
        row = layout.row(window)
        inside = np.diff(row.doc_ids) == 0
        counted = row.mask & inside
        targets += row.tokens[1:][counted].tolist()
        assert (row.tokens[0] == 0) or row.positions[0] == 0
        crossing = row.mask & ~inside
        assert (row.tokens[1:][crossing] == 0).all()  # only "the document ended" is asked across documents
        np.testing.assert_array_equal(row.positions[:-1][crossing] >= 0, True)
        runs = np.flatnonzero(np.diff(row.doc_ids, prepend=-1))
        assert (row.positions[runs] == 0).all()
    expected = [int(token) for token in given_.tokens if token]
    assert sorted(targets) == expected


def test_documents_that_fit_are_not_cut_and_rows_are_full() -> None:
    chance = np.random.default_rng(0)
    lengths = chance.integers(2, 30, 500).tolist()
    layout = BestFit([shard(lengths)], 63)
    best = -(-sum(lengths) // 64)
    assert layout.windows <= best + 1  # best fit wastes next to nothing on short documents
    begins = sum(int((layout.row(window).tokens == 0).sum()) for window in range(layout.windows))
    fills = layout.windows * 64 - sum(lengths)
    assert begins == 500 + fills


def test_bad_weights(tmp_path: Path, tokenizer: Path, mixed: Artifact) -> None:
    with pytest.raises(CauserieError, match="1 weights for 2 parts"):
        TokenBatches(mixed.path, batch_size=2, seq_len=8, seed=0, weights=(1,))
    first = corpus(tmp_path, "one", "a", 80)
    with pytest.raises(CauserieError, match="2 weights for 1 corpora"):
        pack(PackConfig(first, tokenizer, weights=(1.0, 2.0)), tmp_path, Bytes())
