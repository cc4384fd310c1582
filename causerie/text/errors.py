"""Error codes of this room."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-1201": "A tokenizer folder is missing a file or its content is not a tokenizer.",
    "CAU-1202": "A vocabulary size is out of range.",
    "CAU-1203": "A source of text cannot be read, or holds no text.",
    "CAU-1204": "A conversation is not well formed.",
    "CAU-1205": "A chat format is unknown or needs tokens that the tokenizer lacks.",
    "CAU-1206": "A SentencePiece vocabulary is inconsistent.",
}
"""Codes raised by this room and what each means."""
