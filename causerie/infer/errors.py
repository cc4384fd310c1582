"""Codes raised by the inference engine and its client."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-3101": "A request cannot be served: its prompt is empty, too long or holds unknown token ids.",
    "CAU-3102": "A sampling setting is out of its range.",
    "CAU-3103": "The memory given to the key-value cache is too small for one sequence.",
    "CAU-3104": "A request with this id is already in the engine.",
    "CAU-3105": "A message between the server and the engine's process is malformed or too long.",
    "CAU-3106": "The engine's process could not be started.",
    "CAU-3107": "The engine is stopped, or its process failed again and again.",
    "CAU-3108": "An engine setting is out of its range or not possible on this machine.",
    "CAU-3109": "A request is refused because it ended the engine's process twice.",
    "CAU-3110": "A grammar for structured output cannot be used.",
    "CAU-3111": "No adapter of this name is loaded, or the name is in use.",
}
"""Codes raised by this room and what each means."""
