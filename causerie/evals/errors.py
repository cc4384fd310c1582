"""Codes raised by this room."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-4201": "An evaluation suite is unknown.",
    "CAU-4202": "A suite was asked for without the data that it reads.",
    "CAU-4203": "An evaluation data file holds no usable item.",
    "CAU-4204": "A field of an evaluation item is missing or has the wrong type.",
    "CAU-4205": "Two evaluations share no item, so they cannot be compared.",
    "CAU-4206": "An IFEval instruction type is unknown.",
    "CAU-4207": "A multiple-choice table has columns of no known set.",
    "CAU-4208": "A statistic was asked of too few or impossible values.",
    "CAU-4209": "A model gives log-probabilities that are not numbers.",
    "CAU-4210": "A setting of an evaluation is out of range.",
}
"""Code → one-line meaning."""
