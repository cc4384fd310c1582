"""The bag-of-words floor: finds what words say, nothing where they say nothing, and agrees with sklearn."""

from __future__ import annotations

import random

import pytest
import torch

from causerie.align.rankings import Ranking
from causerie.align.word_baseline import _counts, _differences, _fit, bag_of_words_accuracy


def rows(count: int, seed: int, tell: bool) -> list[Ranking]:
    """Answers of random words; where they `tell`, the better one has word 7 in it, never the worse one."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        good, bad = ([rng.randrange(10, 60) for _ in range(8)] for _ in range(2))
        if tell:
            good[3] = 7
        first = number % 2 == 0
        answers = (tuple(good), tuple(bad)) if first else (tuple(bad), tuple(good))
        found.append(Ranking(str(number), (1, 2), answers, (0, 1) if first else (1, 0)))
    return found


def test_a_telling_word_is_found_whatever_the_order_of_the_answers() -> None:
    assert bag_of_words_accuracy(rows(100, 0, True), rows(40, 1, True)) > 0.9


def test_words_that_say_nothing_score_about_one_half() -> None:
    assert 0.35 < bag_of_words_accuracy(rows(100, 0, False), rows(200, 1, False)) < 0.65


def test_nothing_to_learn_from_or_to_measure_is_one_half() -> None:
    assert bag_of_words_accuracy([], rows(3, 0, True)) == 0.5
    assert bag_of_words_accuracy(rows(1, 0, True), rows(3, 1, True)) == 0.5  # every term is rare
    assert bag_of_words_accuracy(rows(60, 0, True), []) == 0.5


def test_unknown_words_only_are_a_tie() -> None:
    strange = [Ranking("x", (1,), ((901, 902), (903,)), (0, 1))]
    assert bag_of_words_accuracy(rows(60, 0, True), strange) == 0.5


def test_the_best_is_compared_with_the_worst_of_a_ranking() -> None:
    best, worst = _counts(Ranking("x", (1,), ((5, 6), (8,), (9, 9)), (1, 0, 2)))
    assert best == {8: 1}
    assert worst == {9: 2, (9, 9): 1}


def test_the_fit_is_sklearns_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    counted = [_counts(row) for row in rows(80, 3, True)]
    place = {term: number for number, term in enumerate([7, *range(10, 60)])}
    x = _differences(counted, place, dict.fromkeys(place, 1.0))
    both = torch.cat((x, -x)).numpy()
    theirs = linear.LogisticRegression(C=0.5, fit_intercept=False, tol=1e-8, max_iter=1000)
    theirs.fit(both, [1] * 80 + [0] * 80)
    assert torch.allclose(_fit(x), torch.from_numpy(theirs.coef_[0]).float(), atol=2e-2)
