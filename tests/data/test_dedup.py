"""Duplicates: closed-form similarity, no false positives, planted copies found, whatever the memory."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.data.decontaminate import eval_runs, overlap
from causerie.data.dedup import (
    Text,
    Thresholds,
    band_keys,
    common_words,
    jaccard,
    minhash,
    shingles,
    similarity,
    words_digest,
)
from causerie.data.duplicates import RULES, DuplicateFinder
from causerie.data.filters import hash_words, view, words_of


def found_in(
    texts: list[str], folder: Path, thresholds: Thresholds | None = None, memory: int = 1 << 24, fixed: int = 0
) -> list[tuple[str, int] | None]:
    finder = DuplicateFinder(folder, thresholds or Thresholds(), memory, fixed)
    for text in texts:
        hashes = view(text).hashes
        finder.add(minhash(hashes), words_digest(hashes))
    found = finder.find(enumerate(texts))
    return [(RULES[int(rule)], int(of)) if rule else None for rule, of in zip(found.rule, found.of, strict=True)]


def changed(text: str, share: float, seed: int) -> str:
    """Exactly a share of the words exchanged."""
    chance, parts = random.Random(seed), text.split()
    for place in chance.sample(range(len(parts)), round(share * len(parts))):
        parts[place] = f"w{chance.randrange(10**9)}"
    return " ".join(parts)


def words(count: int, seed: int) -> str:
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("abcdefghij", k=5)) for _ in range(count))


def ready(text: str) -> Text:
    return Text.of(hash_words(words_of(text)))


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard_is_the_definition(a: set[int], b: set[int]) -> None:
    expected = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(np.array(sorted(a), np.uint64), np.array(sorted(b), np.uint64)) == pytest.approx(expected)


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_common_words_is_the_overlap_of_multisets(a: list[int], b: list[int]) -> None:
    from collections import Counter

    expected = (Counter(a) & Counter(b)).total() / max(len(a), len(b)) if a or b else 1.0
    assert common_words(np.array(a, np.uint64), np.array(b, np.uint64)) == pytest.approx(expected)


def test_signatures_estimate_the_similarity_of_3_word_shingles() -> None:
    text = words(600, 1)
    other = changed(text, 0.03, 2)
    true = jaccard(*(shingles(hash_words(words_of(one)), 3) for one in (text, other)))
    estimate = float(np.mean(minhash(view(text).hashes) == minhash(view(other).hashes)))
    assert abs(true - estimate) < 0.15


def test_band_keys_are_equal_where_the_rows_are() -> None:
    chance = np.random.default_rng(0)
    a, b = chance.integers(0, 2**32, (2, 128), dtype=np.uint32)
    b[8:12] = a[8:12]
    keys = band_keys(np.stack([a, b]))
    np.testing.assert_array_equal(np.flatnonzero(keys[0] == keys[1]), [2])
    assert len(np.unique(keys[0])) == 32


def test_each_measure_says_what_it_is_for() -> None:
    text = words(400, 1)
    near, five, part = changed(text, 0.01, 3), changed(text, 0.07, 4), " ".join(text.split()[:200])
    shuffled = " ".join(random.Random(5).sample(text.split(), 400))
    only = {"jaccard": Thresholds(0.6, 2, 2), "words": Thresholds(2, 0.88, 2), "contained": Thresholds(2, 2, 0.9)}
    says = {
        name: [similarity(ready(text), ready(other), one) is not None for other in (near, five, part, shuffled)]
        for name, one in only.items()
    }
    assert says["jaccard"] == [True, False, False, False]
    assert says["words"] == [True, True, False, False]  # the same words in another order are another text
    assert says["contained"] == [True, False, True, False]
    assert similarity(ready(part), ready(text), only["contained"]) is None  # the whole adds to its part
    assert similarity(ready(text), ready(part), only["contained"]) == 1.0


def test_exact_near_and_different(tmp_path: Path) -> None:
    text = words(400, 1)
    texts = [text, text.upper() + " !", changed(text, 0.01, 3), words(400, 2), changed(text, 0.5, 4)]
    expected = [None, ("exact_duplicate", 0), ("near_duplicate", 0), None, None]
    assert found_in(texts, tmp_path) == expected


def test_copies_with_five_percent_changed_are_found_and_no_others(tmp_path: Path) -> None:
    originals = [words(120 + 7 * seed, seed) for seed in range(60)]
    copies = [changed(text, 0.05, seed) for seed, text in enumerate(originals)]
    found = found_in([*originals, *copies], tmp_path)
    assert found[:60] == [None] * 60
    right = [one == ("near_duplicate", number) for number, one in enumerate(found[60:])]
    assert sum(right) >= 59
    assert all(one is None or one[1] == number for number, one in enumerate(found[60:]))


def test_memory_does_not_change_what_is_found(tmp_path: Path) -> None:
    originals = [words(100, seed) for seed in range(40)]
    texts = [*originals, *(changed(text, 0.02, 1) for text in originals), *originals[:5], words(100, 3)]
    much = found_in(texts, tmp_path / "much")
    assert found_in(texts, tmp_path / "little", memory=1) == much
    assert sum(one is not None for one in much) == 46


def test_many_copies_of_one(tmp_path: Path) -> None:
    text = words(150, 1)
    texts = [text, *(changed(text, 0.01, seed) for seed in range(40))]
    assert found_in(texts, tmp_path)[1:] == [("near_duplicate", 0)] * 40


def test_fixed_documents_stay(tmp_path: Path) -> None:
    text = words(100, 1)
    texts = [text, text, changed(text, 0.01, 1), text]
    assert found_in(texts, tmp_path, fixed=3) == [None, None, None, ("exact_duplicate", 0)]


def test_short_and_empty_texts(tmp_path: Path) -> None:
    found = found_in(["", "a b", "a b", "b a", ""], tmp_path)
    assert found == [None, None, ("exact_duplicate", 1), None, ("exact_duplicate", 0)]
    assert found_in([], tmp_path / "none") == []
    same = [words_digest(hash_words(words_of(text))) for text in ("Été, l'an 1", "été  l'an 1!", "été l'an 2")]
    assert same[0] == same[1] != same[2]


def test_eval_runs_of_any_file(tmp_path: Path) -> None:
    question = words(20, 9)
    short = words(9, 10)
    (tmp_path / "a.csv").write_text(f"id,text\n1,{question}\n")
    (tmp_path / "b.txt").write_text(short)
    (tmp_path / "c.json").write_text(f'[{{"x": ["too short to count", "{short}"]}}]')
    runs = eval_runs(tuple(tmp_path / name for name in ("a.csv", "b.txt", "c.json")))
    assert {length: len(known) for length, known in runs.items()} == {9: 1, 13: 8}
    assert overlap(view(f"before {question} after"), runs) == 8
    assert overlap(view(f"before {short} after"), runs) == 1
    assert overlap(view(" ".join(reversed(question.split()))), runs) == 0
    (tmp_path / "c.json").write_text('[{"x": ["too short to count"]}]')
    with pytest.raises(CauserieError, match="nothing can be compared"):
        eval_runs((tmp_path / "a.csv", tmp_path / "c.json"))
