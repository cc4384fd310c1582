"""Codes raised by this room and what each means."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-4301": "A planning setting is missing or out of its range.",
    "CAU-4302": "A table of runs cannot be read, holds a run that cannot be used, or has too few.",
    "CAU-4303": "A file is no fitted law, curve, prediction or key of ours, or was changed since it was signed.",
    "CAU-4304": "A prediction with this file name exists; predictions are never overwritten.",
    "CAU-4305": "The measured value of a run cannot be found.",
    "CAU-4306": "A layout over devices is impossible.",
    "CAU-4307": "A kind of hardware is unknown, or its price is no price.",
    "CAU-4308": "No layout of the model fits on the devices.",
    "CAU-4309": "A dry run counted other bytes or messages than the closed forms say.",
}
"""Codes of the planning room."""
