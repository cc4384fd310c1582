"""Codes raised by the demo."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-7101": "A file that ships with the demo is missing: the installation is incomplete.",
    "CAU-7102": "The exported folder does not give the same answers in transformers.",
    "CAU-7103": "The folder to export to holds something that is no earlier export.",
}
