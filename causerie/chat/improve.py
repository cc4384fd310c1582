"""One improvement at a time, as a child process; what it does is read from its run folder.

The child is `causerie improve --model NAME --workspace W --json`. It owns `runs/improve-*/`; this room only starts it,
watches it and, when it ended with a promotion, has the new version answer. The run outlives a closed page, and its
folder tells the whole story after a restart of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from causerie.chat.runs import progress_of, safe_events
from causerie.core import CauserieError, read_run

COMMAND: Final = (sys.executable, "-m", "causerie")
ANSWER: Final = "improve.json"
"""File of the workspace that takes the child's stdout: one JSON object as its last line."""
LOG: Final = "improve.log"
"""File of the workspace that takes the child's narration."""
LOG_TAIL: Final = 2_000
STOP_SECONDS: Final = 20.0

log = logging.getLogger("causerie.chat")

OnVerdict = Callable[[str | None], Awaitable[None]]
"""Called when an improvement ended with a verdict: with the version (`name@N`) that it promoted, else None."""


class Improver:
    """Starts, watches and stops the one improvement that may run.

    Args:
        workspace: where the store and the runs are.
        on_verdict: has the new version answer, or a candidate on trial.
        command: how the program is called; `improve --model ...` is appended.
    """

    def __init__(self, workspace: Path, on_verdict: OnVerdict, command: Sequence[str] = COMMAND) -> None:
        self.workspace = workspace
        self._on_verdict = on_verdict
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._model = ""
        self._exit: int | None = None
        self._not_loaded: dict[str, str] | None = None

    @property
    def running(self) -> bool:
        """Whether this server's child runs, or the version that it promoted is being loaded."""
        return self._watch is not None and not self._watch.done()

    async def start(self, model: str) -> None:
        """Start to improve `model`.

        Raises:
            CauserieError: CAU-6105 when an improvement is running, here or from a shell.
        """
        if self.running or self._running_elsewhere():
            raise CauserieError(
                "CAU-6105", "an improvement is under way", where="improve", fix="wait for its verdict, or stop it"
            )
        arguments = ("improve", "--model", model, "--workspace", str(self.workspace), "--json")
        self.workspace.mkdir(parents=True, exist_ok=True)
        self._model, self._exit, self._not_loaded = model, None, None
        with open(self.workspace / ANSWER, "wb") as answer, open(self.workspace / LOG, "wb") as narration:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=answer, stderr=narration
                )
            except OSError as error:
                raise CauserieError(
                    "CAU-6108",
                    f"cannot start: {error}",
                    where=self._command[0],
                    fix="run `causerie improve`",
                ) from error
        self._watch = asyncio.create_task(self._wait(self._process), name="improve")

    async def stop(self) -> None:
        """Ask the improvement to save its state and end; does nothing when none of this server's runs."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def close(self) -> None:
        """Stop the child and wait for its last words (the server is ending)."""
        await self.stop()
        if self._watch is not None:
            await asyncio.wait([self._watch])

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        self._exit = await process.wait()
        state = self._newest()
        verdict = _last(self._round(state), "verdict") if state else None
        if verdict:
            promoted = str(verdict["version"]) if verdict.get("promoted") and verdict.get("version") else None
            try:
                await self._on_verdict(promoted)
            except Exception as error:  # the old version goes on answering
                log.exception("the promoted version could not be loaded")
                self._not_loaded = _not_loaded(error)

    def progress(self, model: str = "") -> dict[str, Any]:
        """What the newest improvement is doing or found: the one under way, whosever it is; else of `model`, if given.

        Returns:
            `status` ("idle", "starting", "running", "done", "refused", "failed" or "stopped"), `model`, `run`, the
            figures of `runs.progress_of`, `gate` (rows or None), `verdict` (or None), `error` and `log` (of a failure).
        """
        state = self._newest(model)
        own = self._owns(model)
        events = self._round(state) if state else []
        gate, verdict = _last(events, "gate"), _last(events, "verdict")
        status = self._status(state, own)
        failed = status in ("failed", "stopped")
        return {
            "status": status,
            "model": self._model if own else (state or {}).get("name"),
            "run": state["id"] if state else None,
            **self._figures(events),
            "gate": gate.get("rows") if gate else None,
            "verdict": verdict,
            "error": self._error(state, own, failed),
            "log": self._log_tail() if failed and own else "",
        }

    def _owns(self, model: str) -> bool:
        """Whether this server's last child is what is asked for: one that runs is, whosever round it is."""
        return self._process is not None and (self.running or not model or self._model == model)

    def _error(self, state: Mapping[str, Any] | None, own: bool, failed: bool) -> dict[str, Any] | None:
        if not failed:
            return self._not_loaded if own else None
        return (state or {}).get("error") or (self._answered_error() if own else None)

    def _figures(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Progress of the round; a stage that names its own run is followed there."""
        figures = progress_of(events)
        stages = [event for event in events if event.get("event") == "stage"]
        runs = [stage["run"] for stage in stages if isinstance(stage.get("run"), str)]
        if not runs or Path(runs[-1]).name != runs[-1]:
            return figures
        inner = progress_of(safe_events(self.workspace / "runs" / runs[-1]))
        if not stages[-1].get("run"):
            return {**figures, "curve": inner["curve"]}
        return {**inner, "stages": figures["stages"]}

    def _round(self, state: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The run's events since the verdict before the last one: the same run may have been started again."""
        events = safe_events(self.workspace / "runs" / str(state["id"]))
        ends = [index for index, event in enumerate(events[:-1]) if event.get("event") == "verdict"]
        return events[ends[-1] + 1 :] if ends else events

    def _status(self, state: Mapping[str, Any] | None, own: bool) -> str:
        if self.running:
            return "running" if state else "starting"
        if own and state is None:
            return "stopped" if self._exit == 75 else "failed"
        return str(state["status"]) if state else "idle"

    def _newest(self, model: str = "") -> dict[str, Any] | None:
        """State of this server's improvement once it has a run folder, else the newest one there is (of `model`)."""
        states = self._states()
        if self._process is not None and self._owns(model):
            pid = self._process.pid
            return next((state for state in states if state.get("pid") == pid), None)
        elsewhere = next((state for state in states if state["status"] == "running"), None)
        return elsewhere or next((state for state in states if not model or state.get("name") == model), None)

    def _states(self) -> list[dict[str, Any]]:
        states = []
        for path in (self.workspace / "runs").glob("improve-*/run.json"):
            with contextlib.suppress(CauserieError, KeyError):
                states.append(read_run(path.parent))
        return sorted(states, key=lambda state: float(state.get("updated", 0)), reverse=True)

    def _running_elsewhere(self) -> bool:
        return any(state["status"] == "running" and state.get("pid") != os.getpid() for state in self._states())

    def _answered_error(self) -> dict[str, str] | None:
        """The error object that the child printed, when it ended before it had a run folder."""
        path = self.workspace / ANSWER
        if self._process is None or not path.is_file():
            return None
        lines = path.read_bytes()[-LOG_TAIL:].decode("utf-8", "replace").split("\n")
        with contextlib.suppress(json.JSONDecodeError, TypeError, IndexError):
            error = json.loads([line for line in lines if line.strip()][-1])["error"]
            return {name: str(error.get(name, "")) for name in ("code", "cause", "where", "fix")}
        return None

    def _log_tail(self) -> str:
        path = self.workspace / LOG
        if self._process is None or not path.is_file():
            return ""
        return path.read_bytes()[-LOG_TAIL:].decode("utf-8", "replace")


def _last(events: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any] | None:
    return next((dict(event) for event in reversed(events) if event.get("event") == kind), None)


def _not_loaded(error: Exception) -> dict[str, str]:
    if isinstance(error, CauserieError):
        return error.as_dict()
    cause = f"the promoted version could not be loaded: {error}"
    return CauserieError("CAU-6108", cause, where="engine", fix="restart `causerie serve`").as_dict()
