"""Progress of long work on stderr: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 10.0


def stderr_console() -> Console:
    """A console on stderr that respects NO_COLOR and never wraps plain output."""
    return Console(stderr=True, soft_wrap=True)


@dataclass
class Tracker:
    """Progress of one piece of work; `advance` after each unit, with figures worth seeing as keywords."""

    label: str
    total: float | None
    unit: str
    begun: float = 0.0
    """Units done before this sitting: shown, but not counted in the rate."""
    _bar: Progress | None = None
    _task: Any = None
    _done: float = 0.0
    _started: float = field(default_factory=time.monotonic)
    _last_line: float = field(default_factory=time.monotonic)

    def advance(self, amount: float = 1, **figures: float | int | str) -> None:
        """Count `amount` units as done and show the figures, e.g. `advance(1, loss=3.2)`."""
        self._done += amount
        text = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, figures=f"{_short(rate)} {self.unit}/s  {text}")
        elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            of = f"/{self.total:g}" if self.total else ""
            done = self.begun + self._done
            left = f"  {(self.total - done) / rate:.0f} s left" if self.total and rate else ""
            say(f"{self.label}: {_short(done)}{of} {self.unit}  {_short(rate)}/s{left}  {text}")


@contextmanager
def track(label: str, total: float | None = None, unit: str = "steps", begun: float = 0.0) -> Iterator[Tracker]:
    """Show progress for the block.

    Args:
        label: what is being done, in a word or two.
        total: units in all; None when unknown.
        unit: name of a unit, plural.
        begun: units that were done before, in work that goes on.
    """
    if not sys.stderr.isatty():
        yield Tracker(label, total, unit, begun)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=int(begun), figures="")
        yield Tracker(label, total, unit, begun, _bar=bar, _task=task)


def say(text: str) -> None:
    """Print a line of narration on stderr."""
    stderr_console().print(text, markup=False, highlight=False)


def _short(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
