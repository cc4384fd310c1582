"""Codes raised by this room."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-4101": "The preferences hold no usable row.",
    "CAU-4102": "KTO was asked to estimate its KL term from a single row.",
    "CAU-4103": "The model and the settings of its adapter do not go together.",
    "CAU-4104": "A folder is no reward model.",
    "CAU-4105": "The prompts of a rollout cannot be used.",
}
"""Code → one-line meaning."""
