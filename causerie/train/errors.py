"""Error codes of this room."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-4001": "A training setting has a value that cannot be used.",
    "CAU-4002": "Nothing to train on: no usable rows or tokens were found.",
    "CAU-4003": "The loss or the gradient stayed infinite or not a number.",
    "CAU-4004": "A checkpoint does not belong to this run's model or data.",
    "CAU-4005": "The training data do not fit the model (vocabulary or length).",
    "CAU-4006": "The work does not divide among the processes.",
    "CAU-4007": "The run to resume has no valid checkpoint.",
    "CAU-4008": "The machine miscounts: the same gradient came out differently.",
}
"""Codes raised by `train` and what each means."""
