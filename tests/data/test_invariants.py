"""What must hold of duplicates, shards and traces whatever comes in: checked against plain Python on many inputs."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import Artifact, CauserieError, open_artifact
from causerie.data import (
    DataBuildConfig,
    PackConfig,
    RemoveConfig,
    TokenBatches,
    TraceConfig,
    build,
    corpus_documents,
    pack,
    read_ledger,
    remove,
    trace,
)
from causerie.data.corpus import json_lines
from causerie.data.dedup import LEAST_JACCARD, Thresholds, minhash, similarity, words_digest
from causerie.data.duplicates import EXACT, NONE, DuplicateFinder, Duplicates
from causerie.data.filters import view
from tests.data.conftest import prose
from tests.data.test_dedup import changed, ready, words
from tests.data.test_trace import Bytes, text_at


def find(texts: list[str], folder: Path, fixed: int = 0, thresholds: Thresholds | None = None) -> Duplicates:
    finder = DuplicateFinder(folder, thresholds or Thresholds(), 1 << 22, fixed)
    for text in texts:
        hashes = view(text).hashes
        finder.add(minhash(hashes), words_digest(hashes))
    return finder.find(enumerate(texts))


FAMILIES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 0, 1, 3, 40])), min_size=1, max_size=14)
"""(family, percent of its words changed) of each text."""


def texts_of(members: list[tuple[int, int]]) -> list[str]:
    originals = [words(90 + 11 * family, family) for family in range(5)]
    return [changed(originals[family], share / 100, 7 * place) for place, (family, share) in enumerate(members)]


@settings(max_examples=60)
@given(members=FAMILIES)
def test_whoever_is_dropped_repeats_one_that_stays_before_it(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[int, int]]
) -> None:
    texts = texts_of(members)
    found = find(texts, tmp_path_factory.mktemp("d"))
    assert found.rule[0] == NONE
    for number in np.flatnonzero(found.rule != NONE):
        first = int(found.of[number])
        assert first < number
        assert found.rule[first] == NONE
        same = similarity(ready(texts[first]), ready(texts[number]), Thresholds())
        assert same == pytest.approx(float(found.similarity[number]), abs=1e-4)
    stays = np.flatnonzero(found.rule == NONE)
    assert (found.of[stays] == -1).all()
    for place, later in enumerate(stays):
        for earlier in stays[:place]:
            assert texts[earlier] != texts[later]


@settings(max_examples=30)
@given(members=FAMILIES, seed=st.integers(0, 99))
def test_the_order_of_the_documents_does_not_change_how_many_exact_copies_there_are(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[int, int]], seed: int
) -> None:
    texts = texts_of(members)
    shuffled = random.Random(seed).sample(texts, len(texts))
    off = Thresholds(2, 2, 2)  # exact copies alone
    kept = []
    for one in (texts, shuffled):
        found = find(one, tmp_path_factory.mktemp("d"), thresholds=off)
        assert set(found.rule.tolist()) <= {NONE, EXACT}
        kept.append(sorted(text for text, rule in zip(one, found.rule, strict=True) if rule == NONE))
    assert kept[0] == kept[1] == sorted(set(texts))


@settings(max_examples=30)
@given(members=FAMILIES, seed=st.integers(0, 99))
def test_documents_that_resemble_nothing_leave_the_verdict_on_others_alone(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[int, int]], seed: int
) -> None:
    texts = texts_of(members)
    chance = random.Random(seed)
    mixed: list[tuple[int | None, str]] = list(enumerate(texts))
    for stranger in range(chance.randrange(6)):
        mixed.insert(chance.randrange(len(mixed) + 1), (None, words(130, 1_000 + stranger)))
    alone = find(texts, tmp_path_factory.mktemp("d"))
    among = find([text for _, text in mixed], tmp_path_factory.mktemp("d"))
    places = {number: place for place, (number, _) in enumerate(mixed) if number is not None}
    for number in range(len(texts)):
        assert among.rule[places[number]] == alone.rule[number]
        if alone.rule[number]:
            assert among.of[places[number]] == places[int(alone.of[number])]
    assert all(among.rule[place] == NONE for place, (number, _) in enumerate(mixed) if number is None)


def test_a_copy_of_a_near_copy_leads_to_the_document_that_stays(tmp_path: Path) -> None:
    text = words(200, 1)
    near = changed(text, 0.02, 3)
    found = find([text, near, near, near.upper(), words(90, 2)], tmp_path)
    assert found.of.tolist() == [-1, 0, 0, 0, -1]
    assert len({*found.similarity[1:4].tolist()}) == 1
    assert found.similarity[1] < 1


def test_the_least_similarity_is_a_floor_under_the_share_of_words() -> None:
    text = words(300, 5)
    for share in (0.02, 0.06, 0.1, 0.2):
        other = changed(text, share, 1)
        near = similarity(ready(text), ready(other), Thresholds(LEAST_JACCARD, 2, 2))
        assert (similarity(ready(text), ready(other), Thresholds(2, 0.5, 2)) is not None) == (near is not None)


def lines(path: Path, texts: list[str], site: str) -> str:
    rows = [{"text": text, "url": f"https://{site}.example/{n}"} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def packed(corpus: Artifact, tokenizer: Path, workspace: Path, **more: object) -> Artifact:
    return pack(PackConfig(corpus.path, tokenizer, val_fraction=0.3, **more), workspace, Bytes())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Crawls:
    """Two crawls with files of one name, the second built after the first, and the shards of each."""

    workspace: Path
    old: Artifact
    new: Artifact
    first: Artifact
    second: Artifact


@pytest.fixture(scope="module")
def crawls(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Crawls:
    """Made once: tests write their own results elsewhere."""
    place = tmp_path_factory.mktemp("crawls")
    for name in ("a", "b"):
        (place / name).mkdir()
    first = lines(place / "a" / "x.jsonl", [prose(n) for n in range(8)], "one")
    texts = [prose(3), *(prose(n, "fr") for n in range(8)), prose(2, "fr")]
    second = lines(place / "b" / "x.jsonl", texts, "two")
    old = build(DataBuildConfig((first,), workers=1, name="first"), place)
    new = build(DataBuildConfig((second,), workers=1, name="second", after=(old.path,)), place)
    shards = [packed(corpus, tokenizer, place, name=name) for corpus, name in ((old, "s1"), (new, "s2"))]
    return Crawls(place, old, new, *shards)


def test_a_page_that_an_earlier_crawl_held_leads_to_that_crawls_shards(crawls: Crawls) -> None:
    found = trace(TraceConfig("https://two.example/0"), crawls.workspace)
    (row,) = found.ledger
    assert row["duplicate_of"] == f"{crawls.old.path.name}/x.jsonl#3"
    (place,) = found.shards
    assert (place["id"], place["url"]) == ("x.jsonl#3", "https://one.example/3")
    assert Path(place["shards"]) == crawls.first.path
    assert text_at(place) == prose(3)


def test_a_number_in_one_crawl_is_not_taken_for_the_same_number_in_another(crawls: Crawls) -> None:
    (place,) = trace(TraceConfig("https://two.example/4"), crawls.workspace).shards
    assert Path(place["shards"]) == crawls.second.path
    assert text_at(place) == prose(3, "fr")
    (copy,) = trace(TraceConfig("https://two.example/9"), crawls.workspace).shards
    assert (copy["id"], text_at(copy)) == ("x.jsonl#3", prose(2, "fr"))
    assert len(trace(TraceConfig("x.jsonl#3"), crawls.workspace).shards) == 2  # an id alone names one in each


def test_every_kept_document_is_found_where_the_trace_says(crawls: Crawls) -> None:
    for corpus in (crawls.old, crawls.new):
        for document in corpus_documents(corpus.path):
            (place,) = trace(TraceConfig(document["url"]), crawls.workspace).shards
            assert text_at(place) == document["text"]


@pytest.mark.parametrize("shard_tokens", [700, 10**6])
def test_shards_without_pages_equal_a_pack_of_the_corpus_without_them(
    crawls: Crawls, tokenizer: Path, tmp_path: Path, shard_tokens: int
) -> None:
    """Tokens in all, order and splits; the removed ones leave nothing, neither tokens nor rows of the index."""
    old = crawls.old
    whole = packed(old, tokenizer, tmp_path, shard_tokens=shard_tokens)
    gone = ("https://one.example/2", "https://one.example/5")
    left = remove(RemoveConfig(whole.path, gone), tmp_path)
    documents = {document["url"]: document["text"] for document in corpus_documents(old.path)}
    for split in ("train-*", "val"):
        streams = []
        for folder in (whole.path, left.path):
            tokens = [np.fromfile(path, "<u2") for path in sorted(folder.glob(f"{split}.bin"))]
            joined = np.concatenate(tokens)
            streams.append(
                [bytes((part[1:] - 1).astype(np.uint8)) for part in np.split(joined, np.flatnonzero(joined == 0))[1:]]
            )
        removed = {documents[url].encode() for url in gone}
        assert streams[1] == [text for text in streams[0] if text not in removed]
    sizes = left.manifest.metrics
    assert sizes["train_documents"] + sizes["val_documents"] == len(documents) - 2
    assert sum(path.stat().st_size for path in left.path.glob("*.bin")) == 2 * (
        sizes["train_tokens"] + sizes["val_tokens"]
    )
    open_artifact(left.path, verify="digest")
    for url in gone:
        assert trace(TraceConfig(url, (left.path,), (crawls.old.path,)), tmp_path).shards == []
        with pytest.raises(CauserieError, match="do not hold"):
            remove(RemoveConfig(left.path, (url,)), tmp_path)
    back = remove(RemoveConfig(left.path, ("https://one.example/0",)), tmp_path)
    assert back.manifest.config["removed"] == ["https://one.example/0", *gone]


def test_the_loader_opens_many_shards_with_one_look_at_the_manifest(
    crawls: Crawls, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from causerie.data import batches

    made = packed(crawls.old, tokenizer, tmp_path, shard_tokens=300)
    files = len(list(made.path.glob("train-*.bin")))
    assert files > 4
    opened = Counter()
    monkeypatch.setattr(batches, "open_artifact", lambda path: opened.update([path]) or open_artifact(path))
    loader = TokenBatches(made.path, batch_size=2, seq_len=32, seed=0)
    assert loader.windows > 0
    assert opened == {made.path: 1}


def test_digests_are_equal_for_any_workers_and_batches(tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", [prose(n % 9, "fr" if n % 3 else "en") for n in range(12)], "a")
    made = [
        build(DataBuildConfig((source,), workers=workers, batch_documents=batch), tmp_path / f"{workers}")
        for workers, batch in ((1, 7), (2, 1), (3, 5), (4, 64))
    ]
    assert len({corpus.key for corpus in made}) == 1
    assert all(corpus.manifest.files == made[0].manifest.files for corpus in made)


def test_clusters_copies_and_the_ledger_tell_the_same(tmp_path: Path) -> None:
    near = prose(1).replace("The", "This", 1)
    texts = [prose(0), prose(1), near, near, prose(0), prose(5), near.upper()]
    made = build(DataBuildConfig((lines(tmp_path / "in.jsonl", texts, "a"),), workers=1), tmp_path / "w")
    rows = {row["id"]: row for row in read_ledger(made.path).to_pylist()}
    kept = {row["id"] for row in rows.values() if row["kept"]}
    clusters = list(json_lines(made.path / "clusters.jsonl.zst"))
    assert {cluster["id"] for cluster in clusters} <= kept
    listed = {(copy["id"], cluster["id"]) for cluster in clusters for copy in cluster["copies"]}
    assert listed == {(row["id"], row["duplicate_of"]) for row in rows.values() if row["duplicate_of"]}
    assert {target for _, target in listed} <= kept
    assert sum(cluster["size"] for cluster in clusters) == len(listed) + len(clusters)
