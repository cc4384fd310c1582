"""Duplicates: closed-form similarity, no false positives, planted copies found."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.data.decontaminate import eval_runs, overlap
from causerie.data.dedup import DuplicateIndex, jaccard, minhash, shingles, text_digest
from causerie.data.filters import hash_words, view, words_of


def index_of(texts: list[str], threshold: float = 0.8) -> list[tuple[str, int] | None]:
    index = DuplicateIndex(threshold, lambda number: texts[number])
    found = [index.check(number, text, minhash(view(text).hashes)) for number, text in enumerate(texts)]
    return [None if one is None else (one.rule, one.of) for one in found]


def changed(text: str, share: float, seed: int) -> str:
    chance = random.Random(seed)
    return " ".join(f"w{chance.random()}" if chance.random() < share else word for word in text.split())


def words(count: int, seed: int) -> str:
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("abcdefghij", k=5)) for _ in range(count))


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard_is_the_definition(a: set[int], b: set[int]) -> None:
    expected = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(np.array(sorted(a), np.uint64), np.array(sorted(b), np.uint64)) == pytest.approx(expected)


def test_signatures_estimate_the_similarity() -> None:
    text = words(600, 1)
    other = changed(text, 0.03, 2)
    true = jaccard(*(shingles(hash_words(words_of(one))) for one in (text, other)))
    estimate = float(np.mean(minhash(view(text).hashes) == minhash(view(other).hashes)))
    assert abs(true - estimate) < 0.15


def test_exact_near_and_different() -> None:
    text = words(400, 1)
    texts = [text, text.upper() + " !", changed(text, 0.01, 3), words(400, 2), changed(text, 0.5, 4)]
    assert index_of(texts) == [None, ("exact_duplicate", 0), ("near_duplicate", 0), None, None]


def test_lightly_changed_copies_are_found() -> None:
    """One word in a hundred changed: exactly those copies are found that brute force finds, and no original."""
    originals = [words(300, seed) for seed in range(60)]
    copies = [changed(text, 0.01, 1000 + seed) for seed, text in enumerate(originals)]
    found = index_of([*originals, *copies])
    assert found[:60] == [None] * 60
    sets = [shingles(hash_words(words_of(text))) for text in (*originals, *copies)]
    expected = [number if jaccard(sets[number], sets[60 + number]) >= 0.8 else None for number in range(60)]
    assert [one and one[1] for one in found[60:]] == expected
    assert expected.count(None) < 5


def test_short_and_empty_texts() -> None:
    assert index_of(["", "a b", "a b", "b a"]) == [None, None, ("exact_duplicate", 1), None]
    assert text_digest("Été, l'an 1") == text_digest("été  l'an 1!")


def test_eval_runs_of_any_file(tmp_path) -> None:
    question = words(20, 9)
    short = words(9, 10)
    (tmp_path / "a.csv").write_text(f"id,text\n1,{question}\n")
    (tmp_path / "b.txt").write_text(short)
    (tmp_path / "c.json").write_text('[{"x": ["too short to count"]}]')
    runs = eval_runs(tuple(tmp_path / name for name in ("a.csv", "b.txt", "c.json")))
    assert {length: len(known) for length, known in runs.items()} == {9: 1, 13: 8}
    assert overlap(view(f"before {question} after"), runs) == 8
    assert overlap(view(f"before {short} after"), runs) == 1
    assert overlap(view(" ".join(reversed(question.split()))), runs) == 0
