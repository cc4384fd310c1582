"""Exact number: 1 when the last number of the answer is the row's `answer`, else 0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

NUMBER: Final = re.compile(r"(?<![\w.])[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?!\w)")
"""Whole numbers, thousands with commas, decimals, fractions; ASCII or Unicode minus."""
DIGITS: Final = 64
"""Numbers longer than this are nobody's answer."""


def exact_answer(row: Mapping[str, Any], text: str) -> float:
    """1.0 when the last number in the text equals `row["answer"]`, compared as fractions: 1,000 = 1000.0 = 2000/2."""
    wanted, found = last_number(str(row.get("answer", ""))), last_number(text)
    return float(wanted is not None and found == wanted)


def last_number(text: str) -> Fraction | None:
    """The last number in a text; None when there is none. GSM8K's answers (`#### 72`) read the same way."""
    for match in reversed(list(NUMBER.finditer(text))):
        written = match.group().replace(",", "").replace("−", "-")
        if len(written) > DIGITS:
            continue
        try:
            return Fraction(*map(Fraction, written.split("/")))
        except ZeroDivisionError:
            continue
    return None
