"""Codes raised by the loop."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-5101": "There is not enough feedback for a round: too few votes, or none on one side of the split.",
    "CAU-5102": "The model to improve has no promoted version.",
    "CAU-5103": "A guard file is missing or empty.",
    "CAU-5104": "Another turn of the loop is under way for this model.",
    "CAU-5105": "A candidate of this model is on trial; a new one waits for its votes.",
    "CAU-5106": "A setting of the loop is out of range, or a canary cannot be what was asked for.",
    "CAU-5107": "The registered protocol of a round was changed after it was registered.",
    "CAU-5108": "There is no canary to look at or to end.",
}
