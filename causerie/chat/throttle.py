"""Slowing down those who guess: after a few failures each further attempt has to wait, twice as long every time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from causerie.core import CauserieError

FREE: Final = 5
"""Failures before waiting begins."""
LONGEST: Final = 900.0
"""Seconds to wait at most; also after which failures are forgotten."""
REMEMBERED: Final = 10_000
"""Names and addresses that are remembered at most; the oldest are forgotten first."""


class Throttle:
    """Counts failures by name and by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, *who: str) -> None:
        """Refuse an attempt that comes too early.

        Raises:
            CauserieError: CAU-6114 saying how long to wait.
        """
        wait = max(self._wait(one) for one in who)
        if wait > 0:
            raise CauserieError(
                "CAU-6114", "too many attempts failed", where="sign-in", fix=f"wait {int(wait) + 1} seconds"
            )

    def failed(self, *who: str) -> None:
        """Note a failure."""
        for one in who:
            count, since = self._failures.pop(one, (0, 0.0))
            fresh = self._clock() - since > LONGEST
            self._failures[one] = (1 if fresh else count + 1, self._clock())
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, *who: str) -> None:
        """Forget the failures of somebody who proved who they are."""
        for one in who:
            self._failures.pop(one, None)

    def _wait(self, one: str) -> float:
        count, since = self._failures.get(one, (0, 0.0))
        delay = min(LONGEST, 2.0 ** (count - FREE)) if count >= FREE else 0.0
        return since + delay - self._clock()
