"""Corpora from corpora: moved thresholds without reading again, a later crawl after an earlier one, clusters, hits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causerie.core import Artifact, CauserieError
from causerie.data import DataBuildConfig, RefilterConfig, build, corpus_documents, read_ledger, refilter
from causerie.data.corpus import json_lines
from causerie.data.filters import words_of

FILES = ("documents.jsonl.zst", "dropped.jsonl.zst", "clusters.jsonl.zst", "signatures.bin", "ledger.parquet")


def lines_of(path: Path, texts: list[str], site: str = "a") -> str:
    rows = [{"text": text, "url": f"https://{site}.example/{n}"} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ids(corpus: Artifact) -> list[str]:
    return [document["id"] for document in corpus_documents(corpus.path)]


@pytest.mark.parametrize(
    "setting", ["min_words=105", "languages=fr", "dedup_threshold=1", "max_top_ngrams=0.5,0.4,0.05"]
)
def test_refilter_equals_a_build_with_those_thresholds(small_warc: Path, tmp_path: Path, setting: str) -> None:
    name = setting.partition("=")[0]
    values = {"min_words": 105, "languages": ("fr",), "dedup_threshold": 1.0, "max_top_ngrams": (0.5, 0.4, 0.05)}
    old = build(DataBuildConfig(sources=(str(small_warc),), workers=1), tmp_path)
    expected = build(DataBuildConfig(sources=(str(small_warc),), workers=1, **{name: values[name]}), tmp_path / "b")
    made = refilter(RefilterConfig(old.path, (setting,)), tmp_path)
    for file in FILES:
        assert (made.path / file).read_bytes() == (expected.path / file).read_bytes(), file
    assert made.manifest.metrics["documents_kept"] == expected.manifest.metrics["documents_kept"]


def test_refilter_there_and_back(small_warc: Path, tmp_path: Path) -> None:
    old = build(DataBuildConfig(sources=(str(small_warc),), workers=1), tmp_path)
    english = refilter(RefilterConfig(old.path, ("languages=en",), out=tmp_path / "en"), tmp_path)
    assert len(ids(english)) == len(ids(old)) - 4
    back = refilter(RefilterConfig(english.path, ("languages=en,fr",), out=tmp_path / "back"), tmp_path)
    for file in FILES:
        assert (back.path / file).read_bytes() == (old.path / file).read_bytes(), file


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (("min_words",), "CAU-2003", "NAME=VALUE"),
        (("extractor=auto",), "CAU-2003", "cannot|can be moved"),
        (("min_words=many",), "CAU-2003", "no int"),
        (("min_words=[1]",), "CAU-2003", "no int"),
    ],
)
def test_settings_that_cannot_be(small_warc: Path, tmp_path: Path, settings: tuple, code: str, said: str) -> None:
    old = build(DataBuildConfig(sources=(str(small_warc),), workers=1), tmp_path)
    with pytest.raises(CauserieError, match=said) as caught:
        refilter(RefilterConfig(old.path, settings), tmp_path)
    assert caught.value.code == code


def test_refilter_needs_the_dropped_texts(small_warc: Path, tmp_path: Path) -> None:
    old = build(DataBuildConfig(sources=(str(small_warc),), workers=1, keep_dropped=False), tmp_path)
    assert list(json_lines(old.path / "dropped.jsonl.zst")) == []
    with pytest.raises(CauserieError) as caught:
        refilter(RefilterConfig(old.path), tmp_path)
    assert caught.value.code == "CAU-2011"


def test_a_later_crawl_drops_what_an_earlier_one_holds(tmp_path: Path, make_prose) -> None:
    first = lines_of(tmp_path / "one.jsonl", [make_prose(n) for n in range(4)])
    near = make_prose(1).replace("The", "This", 1)
    second = lines_of(tmp_path / "two.jsonl", [make_prose(2), near, make_prose(9), make_prose(9)], "b")
    old = build(DataBuildConfig(sources=(first,), workers=1), tmp_path)
    new = build(DataBuildConfig(sources=(second,), workers=1, after=(old.path,), name="later"), tmp_path)
    assert ids(new) == ["two.jsonl#2"]
    rows = {row["id"]: row for row in read_ledger(new.path).to_pylist()}
    assert rows["two.jsonl#0"]["duplicate_of"] == f"{old.path.name}/one.jsonl#2"
    assert rows["two.jsonl#1"]["rule"] == "near_duplicate"
    assert rows["two.jsonl#3"]["duplicate_of"] == "two.jsonl#2"
    both = build(DataBuildConfig(sources=(first, second), workers=1), tmp_path / "both")
    assert len(ids(both)) == len(ids(old)) + len(ids(new))
    third = build(DataBuildConfig(sources=(second,), workers=1, after=(old.path,), name="again"), tmp_path / "x")
    assert third.key == new.key  # a key follows content, not places


def test_clusters_hits_and_repeated_lines_are_listed(tmp_path: Path, make_prose) -> None:
    note = "Sign up for the letter that we send"
    pages = [f"{make_prose(n, sentences=9)}\n{note}" for n in range(4)]
    source = lines_of(tmp_path / "in.jsonl", [*pages, pages[0], pages[0] + " more", make_prose(30)])
    question = " ".join(make_prose(30).split()[5:30])
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": question}) + "\n")
    config = DataBuildConfig(
        sources=(source,), workers=1, boilerplate_pages=4, decontaminate=(tmp_path / "exam.jsonl",), weights=(2.0,)
    )
    made = build(config, tmp_path)
    (cluster,) = json_lines(made.path / "clusters.jsonl.zst")
    assert (cluster["id"], cluster["size"]) == ("in.jsonl#0", 3)
    assert [copy["rule"] for copy in cluster["copies"]] == ["exact_duplicate", "near_duplicate"]
    (hit,) = (json.loads(line) for line in (made.path / "contamination.jsonl").read_text().splitlines())
    assert (hit["id"], hit["files"]) == ("in.jsonl#6", ["exam.jsonl"])
    assert hit["words"] in " ".join(words_of(question))
    documents = list(corpus_documents(made.path))
    assert len(documents) == 4
    assert all(note not in document["text"] and document["part"] == 0 for document in documents)
    rows = {row["id"]: row for row in read_ledger(made.path).to_pylist()}
    assert [rows[f"in.jsonl#{n}"]["cut_lines"] for n in range(7)] == [1, 1, 1, 1, 0, 0, 0]


def test_a_page_that_loses_its_lines_is_judged_anew(tmp_path: Path, make_prose) -> None:
    shared = make_prose(50)
    source = lines_of(tmp_path / "in.jsonl", [f"{shared}\n{make_prose(n)}" for n in range(3)])
    keep = DataBuildConfig(sources=(source,), workers=1, dedup_threshold=1.0, dedup_words=1.01, dedup_contained=1.01)
    loose = {"max_top_ngrams": (1.0,) * 3, "max_repeated_ngrams": (1.0,) * 6}
    cut = build(DataBuildConfig(**{**vars(keep), **loose, "boilerplate_pages": 3}), tmp_path)
    words = {row["id"]: row["words"] for row in read_ledger(cut.path).to_pylist()}
    assert all(abs(count - len(make_prose(n).split())) < 8 for n, count in enumerate(words.values()))
