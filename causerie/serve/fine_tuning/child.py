"""The trainer's process: started, listened to through its run folder, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from causerie.core import read_events

POLL_SECONDS: Final = 0.3
STOP_SECONDS: Final = 20.0
"""How long a process may take to save its state before it is killed."""
IN_USE: Final = "CAU-1004"
"""Another process still owns the run: one that a killed server left behind."""
TOLD: Final = 200
"""Steps that are told, about; of longer runs every so-manieth."""

Heard = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Ended:
    """How a process ended, and the JSON object on its last line."""

    status: int
    result: dict[str, Any] = field(default_factory=dict)


class Child:
    """One training process.

    Args:
        command: what is run.
        log: file for what it says on stderr.
        run_folder: finds the folder of its run, once there is one.
    """

    def __init__(self, command: Sequence[str], log: Path, run_folder: Callable[[], Path | None]) -> None:
        self._command = list(command)
        self._log = log
        self._run_folder = run_folder
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._seen = 0
        self._heard_of: Path | None = None

    def terminate(self) -> None:
        """Ask it to save its state and end."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def run(self, heard: Heard) -> Ended:
        """Run until it ends, handing on all that its run tells and told before; a run in use is waited for."""
        while True:
            ended = await self._once(heard)
            in_use = ended.result.get("error", {}).get("code") == IN_USE
            if not in_use or self._stopping:
                return ended
            await asyncio.sleep(1.0)

    async def _once(self, heard: Heard) -> Ended:
        with open(self._log, "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )
        process = self._process
        if self._stopping:
            self.terminate()
        assert process.stdout is not None
        output = asyncio.create_task(process.stdout.read())
        try:
            while not output.done():
                await asyncio.wait([output], timeout=POLL_SECONDS)
                await self._listen(heard)
            status = await process.wait()
            await self._listen(heard)
            return Ended(status, last_object(output.result()))
        except BaseException:
            await self._end(process)
            raise
        finally:
            output.cancel()

    async def _listen(self, heard: Heard) -> None:
        folder = self._run_folder()
        if folder is None:
            return
        if folder != self._heard_of:
            self._heard_of, self._seen = folder, 0
        events = await asyncio.to_thread(read_events, folder, self._seen)
        self._seen += len(events)
        for event in events:
            stride = max(1, _total_steps(event) // TOLD)
            if event["event"] != "step" or event["step"] % stride == 0:
                await heard(event)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), STOP_SECONDS)
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _total_steps(event: dict[str, Any]) -> int:
    """About how many steps a run has, from what one of them says."""
    left, passed, step = event.get("seconds_left") or 0.0, event.get("seconds") or 0.0, event.get("step") or 0
    return int(step * (1 + left / passed)) if passed else 0


def last_object(output: bytes) -> dict[str, Any]:
    """The JSON object on the last line of a command's output; empty when there is none."""
    lines = output.strip().splitlines()
    with contextlib.suppress(ValueError):
        value = json.loads(lines[-1]) if lines else {}
        return value if isinstance(value, dict) else {}
    return {}
