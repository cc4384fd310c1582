"""What a bag of words knows about which answer people prefer: the floor that a reward model has to beat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

from causerie.align.rankings import Ranking

MOST_TERMS = 20_000
"""Terms kept, the most frequent ones."""
RARE = 3
"""Terms seen in fewer answers are left out."""

Term = int | tuple[int, int]


def bag_of_words_accuracy(train: Sequence[Ranking], heldout: Sequence[Ranking]) -> float:
    """Share of `heldout` whose best answer scores above the worst by logistic regression fitted on `train`.

    Features are differences of TF-IDF vectors of length 1 (tokens and pairs of neighbouring tokens, log(1 + count)
    times a smoothed log of the inverse frequency), ridge 1. A tie counts half. 0.5 where nothing can be learnt.
    """
    counted = [_counts(row) for row in train]
    seen = Counter(term for both in counted for one in both for term in one)
    terms = [term for term, count in seen.most_common(MOST_TERMS) if count >= RARE]
    if not terms or not heldout:
        return 0.5
    idf = {term: math.log((1 + 2 * len(train)) / (1 + seen[term])) + 1 for term in terms}
    place = {term: number for number, term in enumerate(terms)}
    weights = _fit(_differences(counted, place, idf))
    margins = _differences([_counts(row) for row in heldout], place, idf) @ weights
    return float(((margins > 0).float() + 0.5 * (margins == 0).float()).mean())


def _counts(row: Ranking) -> tuple[Counter[Term], Counter[Term]]:
    """Terms of the best and of the worst answer."""
    best, worst = (row.completions[row.ranks.index(end(row.ranks))] for end in (min, max))
    return Counter([*best, *pairwise(best)]), Counter([*worst, *pairwise(worst)])


def _differences(
    counted: Sequence[tuple[Counter[Term], Counter[Term]]], place: dict[Term, int], idf: dict[Term, float]
) -> Tensor:
    found = torch.zeros((len(counted), len(place)))
    for row, both in enumerate(counted):
        for sign, counts in zip((1.0, -1.0), both, strict=True):
            values = {term: math.log1p(count) * idf[term] for term, count in counts.items() if term in place}
            norm = math.sqrt(sum(value**2 for value in values.values())) or 1.0
            for term, value in values.items():
                found[row, place[term]] += sign * value / norm
    return found


def _fit(x: Tensor) -> Tensor:
    weights = torch.zeros(x.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = softplus(-(x @ weights)).sum() + 0.5 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()
