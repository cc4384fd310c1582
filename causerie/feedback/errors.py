"""Errors of the feedback room."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-1301": "A feedback record breaks its rules.",
    "CAU-1302": "A signal refers to an answer that was not recorded, or compares answers to different prompts.",
    "CAU-1303": "The same id was sent before with other content.",
    "CAU-1304": "No such signal.",
    "CAU-1305": "A feedback file cannot be read, or holds nothing that can be imported.",
    "CAU-1306": "There is no usable feedback to train on.",
    "CAU-1307": "A do-not-train list, or a file of questions kept apart, cannot be read.",
    "CAU-1308": "A setting of a feedback command is out of range.",
}
"""Codes raised by this room and what each means."""
