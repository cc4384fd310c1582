"""Errors of the hub."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-5001": "No model of this name, version or path.",
    "CAU-5002": "A model name, status or parent breaks the registry's rules.",
    "CAU-5003": "The version cannot change to the state asked for.",
    "CAU-5004": "The folder is not a model that can be loaded or imported.",
    "CAU-5005": "There is no earlier promoted version to go back to.",
    "CAU-5006": "No such answer was recorded.",
}
"""Codes raised by this room and what each means."""
