"""The demo's narration: one line when a stage begins, one when it ends, and everything kept for the summary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from causerie.core import say


@dataclass
class Stage:
    """One stage: seconds it took and the figures it gave."""

    name: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


@dataclass
class Timeline:
    """The stages so far."""

    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[Stage]:
        """Time a stage; its `lines` are told when it ends well."""
        say(f"\n{len(self.stages) + 1}. {name}: {what}")
        stage, started = Stage(name), time.monotonic()
        yield stage
        stage.seconds = round(time.monotonic() - started, 1)
        self.stages.append(stage)
        for line in stage.lines:
            say(f"   {line}")
        say(f"   {stage.seconds:.1f} s")

    def summary(self) -> dict[str, Any]:
        """Seconds and figures by stage."""
        seconds = {stage.name: stage.seconds for stage in self.stages}
        figures = {stage.name: stage.figures for stage in self.stages}
        return {"seconds": seconds, "seconds_total": round(sum(seconds.values()), 1), **figures}
