"""What the values of a build may be: checked before any work is done, by `data build` and `data refilter` alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from causerie.data.config import DataBuildConfig
from causerie.data.errors import data_error
from causerie.data.language import known_languages

LENGTHS: Final = {"max_top_ngrams": 3, "max_repeated_ngrams": 6}
"""Settings of several numbers, and how many they need."""
BOUNDS: Final = {
    "sample": (1e-9, 1),
    "dedup_threshold": (1e-9, 1),
    "page_seconds": (1e-3, 1e6),
    "page_memory_mb": (1, 10**9),
    **dict.fromkeys(
        ("batch_documents", "max_page_bytes", "decontaminate_ngram", "dedup_memory_mb", "tasks"), (1, 1e18)
    ),
}
"""Least and largest value of those that have bounds; all others are 0 at least."""


def check_values(config: DataBuildConfig) -> None:
    """Refuse numbers that are none, or out of range, and languages that nothing is told to be in.

    Raises:
        CauserieError: CAU-2003 naming the flag.
    """
    for item in (item for item in fields(config) if item.name != "weights"):
        value = getattr(config, item.name)
        least, most = BOUNDS.get(item.name, (0, math.inf))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not (math.isfinite(number) and least <= number <= most):
                said = f"from {least:g} to {most:g}" if item.name in BOUNDS else "not below 0"
                raise _refused(item.name, f"{number} is out of range", f"give a number {said}")
    for name, length in LENGTHS.items():
        if len(getattr(config, name)) != length:
            cause = f"{len(getattr(config, name))} values where {length} are needed"
            raise _refused(name, cause, f"give {length} numbers")
    for code in config.languages:
        if code not in known_languages():
            cause = f"no text is ever told to be in {code!r}"
            raise _refused("languages", cause, "give ISO 639-1 codes, such as en fr")


def check_weights(weights: Sequence[float], needed: int, of: str) -> None:
    """Refuse weights that are not one for each of the `needed` things called `of`, or not above 0.

    Raises:
        CauserieError: CAU-2003.
    """
    if weights and len(weights) != needed:
        raise _refused("weights", f"{len(weights)} weights for {needed} {of}", "give each one above 0")
    for weight in weights:
        if not 0 < weight < math.inf:
            raise _refused("weights", f"{weight} is no weight", "give each one above 0")


def _refused(name: str, cause: str, fix: str) -> Exception:
    return data_error("CAU-2003", cause, where=f"--{name.replace('_', '-')}", fix=fix)
