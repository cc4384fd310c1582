"""Named crash points: places where a test may kill the process to prove that nothing is lost.

`CAUSERIE_CRASH_AT=name` (or `name:3` for the third visit) kills the process there with SIGKILL.
`CAUSERIE_CRASH_LOG=file` appends the name of every point passed, so that a test can enumerate them.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_visits: Counter[str] = Counter()


def crashpoint(name: str) -> None:
    """Mark a crash point; does nothing unless one of the two environment variables is set."""
    log = os.environ.get("CAUSERIE_CRASH_LOG")
    armed = os.environ.get("CAUSERIE_CRASH_AT")
    if not log and not armed:
        return
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(name + "\n")
    if armed:
        target, _, nth = armed.partition(":")
        if target == name:
            _visits[name] += 1
            if _visits[name] >= int(nth or 1):
                os.kill(os.getpid(), signal.SIGKILL)
