"""Text of a token stream while it grows: only whole characters come out, and stop strings end it."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from causerie.text.tokenizer import Tokenizer


class StreamDecoder:
    """Decodes a token sequence piece by piece; the pieces joined equal `decode` of the whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int]) -> str:
        """Text that the new ids complete; bytes of an unfinished character wait for the next call."""
        return self._decoder.decode(self._tokenizer.decode_bytes(ids))

    def finish(self) -> str:
        """What is left at the end: "" or U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Cuts a text stream at the first of some stop strings, which itself does not come out.

    Text that may turn out to begin a stop string is held back until it is known not to.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Text that is safe to show; sets `stopped` once a stop string was seen."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        whole = self._held + text
        places = [place for stop in self._stops if (place := whole.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return whole[: min(places)]
        keep = self._undecided(whole)
        self._held = whole[len(whole) - keep :]
        return whole[: len(whole) - keep]

    def _undecided(self, whole: str) -> int:
        """Length of the longest ending of `whole` that begins a stop string."""
        longest = min(len(whole), max(len(stop) for stop in self._stops) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(whole[-length:]) for stop in self._stops):
                return length
        return 0

    def finish(self) -> str:
        """Text still held back when the stream ends without a stop string."""
        held, self._held = self._held, ""
        return "" if self.stopped else held
