"""Error codes of this room."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-4401": "The packages that carry the starter's weights are not installed.",
    "CAU-4402": "The installed starter packages are not the pinned version, or their content differs from the pin.",
    "CAU-4403": "A file that ships with the starter is missing or damaged.",
}
"""Codes raised by this room and what each means."""
