"""Error codes of this room."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-3001": "A model's shape is impossible or lies outside what is supported.",
    "CAU-3002": "A config.json describes a model that this package cannot run.",
    "CAU-3003": "A model folder holds code or pickles, which are never loaded.",
    "CAU-3004": "A weight file lacks tensors, holds unknown ones, or has tensors of the wrong shape.",
    "CAU-3005": "A folder holds neither a model nor an adapter.",
    "CAU-3006": "A GGUF file is damaged or not a GGUF file.",
    "CAU-3007": "A GGUF file uses a model family or a tensor encoding that is not supported.",
    "CAU-3008": "An adapter cannot be added, or does not fit its model.",
    "CAU-3009": "A text is longer than the model's learned positions.",
    "CAU-3010": "A model cannot be exported in the asked format.",
    "CAU-3011": "A training-only part does not fold into the plain model.",
}
"""Codes raised by this room and what each means."""
