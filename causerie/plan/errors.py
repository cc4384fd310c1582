"""Codes raised by this room and what each means."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-4301": "A planning setting is missing or out of its range.",
    "CAU-4302": "A table of runs cannot be read, or has too few usable rows.",
    "CAU-4303": "A file is not a fitted law or not a prediction of ours.",
    "CAU-4304": "A prediction with this file name exists; predictions are never overwritten.",
    "CAU-4305": "The measured value of a run cannot be found.",
}
"""Codes of the planning room."""
