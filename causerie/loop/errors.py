"""Codes raised by the loop."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-5101": "There is not enough feedback for a round: too few votes, or none on one side of the split.",
    "CAU-5102": "The model to improve has no promoted version.",
    "CAU-5103": "A guard file is missing or empty.",
}
