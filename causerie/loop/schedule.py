"""The loop on a timer: look at the canary, turn when there are enough new votes, wait, until asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from causerie.core import CauserieError, Stopped, graceful_stop, say
from causerie.loop.config import ImproveConfig
from causerie.loop.lock import one_turn
from causerie.loop.turn import Improved, improve

WAITS: Final = ("CAU-5101", "CAU-5104", "CAU-5105", "CAU-1306")
"""Errors that only mean "not yet": too few votes, another turn under way, a candidate on trial, no feedback at all."""

NAP: Final = 1.0
"""Seconds after which a stop is noticed while waiting."""


def keep_improving(
    config: ImproveConfig,
    workspace: Path,
    *,
    turns: int = 0,
    turn: Callable[[ImproveConfig, Path], Improved] = improve,
    sleep: Callable[[float], None] = time.sleep,
) -> Improved | None:
    """Turn the loop every `config.schedule` minutes; returns the last verdict after `turns` looks.

    Args:
        config: as for `improve`.
        workspace: the workspace.
        turns: looks after which to end; 0 goes on until SIGTERM or SIGINT.
        turn: what turns the loop once.
        sleep: waits.

    Raises:
        CauserieError: CAU-5104 when another schedule runs for the model, CAU-5106; what a turn raises beside `WAITS`.
        Stopped: when asked to stop.
    """
    config.check()
    last: Improved | None = None
    looks = 0
    with one_turn(workspace, config.model, "schedule"), graceful_stop() as stop:
        while True:
            try:
                last = turn(replace(config, schedule=0.0), workspace)
            except CauserieError as error:
                if error.code not in WAITS:
                    raise
                say(f"not yet: {error.cause}")
            looks += 1
            if turns and looks >= turns:
                return last
            _wait(config.schedule * 60, stop, sleep)


def _wait(seconds: float, stop: Callable[[], bool], sleep: Callable[[float], None]) -> None:
    until = seconds
    while until > 0:
        if stop():
            raise Stopped("asked to stop between two turns")
        sleep(min(NAP, until))
        until -= NAP
    if stop():
        raise Stopped("asked to stop between two turns")
