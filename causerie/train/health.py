"""When an update must not be applied: numbers that are not finite, and spikes.

The window of the spike rule holds finite values only, so that one NaN does not make the next good updates look bad, and
it is part of the checkpoint, so that a resumed run skips what an unbroken one would.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Final

WINDOW: Final = 128
"""Updates that a spike is measured against (as in OLMo-core)."""
FEWEST: Final = 64
"""Updates before the rule speaks."""


@dataclass
class SpikeRule:
    """Skip an update whose loss or gradient norm is more than `sigmas` deviations above the last updates' mean.

    A spike enters the window too: where the level has really changed, the rule gets used to it.
    """

    sigmas: float
    """Deviations above the mean; 0 turns the rule off."""
    losses: list[float] = field(default_factory=list)
    """Losses of the last updates, finite ones only."""
    norms: list[float] = field(default_factory=list)
    """Gradient norms of the last updates, finite ones only."""

    def is_spike(self, loss: float, norm: float) -> bool:
        """Whether the update is to be skipped; its finite values are remembered either way."""
        spike = self._above(self.losses, loss) or self._above(self.norms, norm)
        for window, value in ((self.losses, loss), (self.norms, norm)):
            if math.isfinite(value):
                window.append(value)
                del window[:-WINDOW]
        return spike

    def _above(self, window: list[float], value: float) -> bool:
        if not self.sigmas or len(window) < FEWEST or not math.isfinite(value):
            return False
        mean = statistics.fmean(window)
        return value > mean + self.sigmas * max(statistics.pstdev(window, mean), 1e-3 * abs(mean))
