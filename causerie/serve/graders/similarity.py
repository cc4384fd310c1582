"""How alike two texts are: the n-gram measures of machine translation and summarisation, on lower-cased words.

BLEU is Papineni et al. 2002 with add-one smoothing above one word (Lin and Och 2004), GLEU the sentence measure of Wu
et al. 2016 (arXiv:1609.08144), ROUGE the F1 of Lin 2004, fuzzy match the ratio of Ratcliff and Obershelp.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

_WORD: Final = re.compile(r"\w+|[^\w\s]")
MAX_WORDS: Final = 4_000
"""Words compared, at most: two of these measures take time in the product of both lengths."""


def words(text: str) -> list[str]:
    """Lower-cased words and marks."""
    return _WORD.findall(text.lower())[:MAX_WORDS]


def similarity(metric: str, text: str, reference: str) -> float:
    """A measure by its name in the API, from 0 to 1. `cosine` and `meteor` are not among them.

    Raises:
        ValueError: for another name.
    """
    if metric == "fuzzy_match":
        return SequenceMatcher(None, text[:MAX_WORDS], reference[:MAX_WORDS], autojunk=False).ratio()
    given, wanted = words(text), words(reference)
    if metric == "bleu":
        return bleu(given, wanted)
    if metric == "gleu":
        return gleu(given, wanted)
    if metric == "rouge_l":
        return _f1(longest_common(given, wanted), len(given), len(wanted))
    if metric.startswith("rouge_") and metric[6:].isdigit():
        return rouge(given, wanted, int(metric[6:]))
    raise ValueError(f"{metric} is not computed by this server")


def _grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu(given: Sequence[str], wanted: Sequence[str], longest: int = 4) -> float:
    """Geometric mean of n-gram precisions times the penalty for being short."""
    if not given or not wanted:
        return float(not given and not wanted)
    logs = 0.0
    for n in range(1, longest + 1):
        ours, theirs = _grams(given, n), _grams(wanted, n)
        matches, total = (ours & theirs).total(), max(ours.total(), 0)
        if n == 1 and matches == 0:
            return 0.0
        smooth = 0 if n == 1 else 1
        logs += math.log((matches + smooth) / (total + smooth)) / longest
    brevity = min(0.0, 1 - len(wanted) / len(given))
    return math.exp(logs + brevity)


def gleu(given: Sequence[str], wanted: Sequence[str], longest: int = 4) -> float:
    """Matching n-grams up to `longest` over the larger of both counts."""
    ours: Counter[tuple[str, ...]] = Counter()
    theirs: Counter[tuple[str, ...]] = Counter()
    for n in range(1, longest + 1):
        ours += _grams(given, n)
        theirs += _grams(wanted, n)
    most = max(ours.total(), theirs.total())
    return (ours & theirs).total() / most if most else 1.0


def rouge(given: Sequence[str], wanted: Sequence[str], n: int) -> float:
    """F1 of n-grams."""
    ours, theirs = _grams(given, n), _grams(wanted, n)
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for place, other in enumerate(right, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def _f1(matches: int, ours: int, theirs: int) -> float:
    if not ours and not theirs:
        return 1.0
    return 2 * matches / (ours + theirs)
