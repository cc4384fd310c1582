"""Waiting for what happens elsewhere: in a server's thread, in another process, on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds until a wait is given up. Nothing takes this long even where ten others compute, so no test depends on the
machine's speed; one whose event never comes still fails, well before pytest's own limit."""
PAUSE = 0.01
"""Seconds between two looks."""


def wait_for(what: Callable[[], object], seconds: float = PATIENCE, pause: float = PAUSE) -> None:
    """Wait until something is so. Looks are counted, not the clock read: who stands still meanwhile loses no patience.

    Args:
        what: looks; cheap, or with a longer pause.
        seconds, pause: how often it looks: so many seconds with nothing but pauses.

    Raises:
        AssertionError: it was not so in time.
    """
    for _ in range(int(seconds / pause)):
        if what():
            return
        time.sleep(pause)
    raise AssertionError("it did not happen in time")
