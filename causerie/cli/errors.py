"""Codes raised by the command line itself."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-7001": "The command line or configuration file has an unknown name or a value of the wrong type.",
    "CAU-7002": "A text input (file or standard input) cannot be read.",
    "CAU-7003": "The run that was named has nothing to draw.",
    "CAU-7004": "A file or folder cannot be used: no permission, or not of the kind that is needed.",
}
