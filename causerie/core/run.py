"""Run folders: what a piece of long work is doing, readable by others while it works.

`<workspace>/runs/<id>/` holds `run.json` (command, config, status, result), `events.jsonl` (metrics, one
object a line, in order) and whatever checkpoints the work keeps. One process owns a run at a time (flock).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from causerie.core.errors import CauserieError, Finding, Stopped
from causerie.core.files import parse_line, read_json, write_json
from causerie.core.workspace import folder_name

Status = Literal["running", "done", "refused", "failed", "stopped"]


@dataclass
class Run:
    """A run that this process owns; made by `open_run`."""

    path: Path
    kind: str
    name: str
    config: dict[str, Any]
    result: dict[str, Any] = field(default_factory=dict)
    _events: IO[str] | None = None

    @property
    def id(self) -> str:
        """The run's id: the name of its folder."""
        return self.path.name

    def log(self, event: str, **values: Any) -> None:
        """Append one event: `log("step", step=3, loss=2.5)`. Values are plain JSON; the time is added."""
        row = {"event": event, "time": round(time.time(), 3), **values}
        assert self._events is not None
        self._events.write(json.dumps(row, ensure_ascii=False, default=float) + "\n")
        self._events.flush()

    def write_status(self, status: Status, error: dict[str, str] | None = None) -> None:
        """Write `run.json` with the present status, result and, when failed, the error."""
        now = round(time.time(), 3)
        state = {"id": self.id, "kind": self.kind, "name": self.name, "status": status, "pid": os.getpid()}
        rest = {"updated": now, "config": self.config, "result": self.result, "error": error}
        write_json(self.path / "run.json", {**state, **rest})


@contextmanager
def open_run(workspace: Path, kind: str, name: str, key: str, config: Mapping[str, Any]) -> Iterator[Run]:
    """Own the run `<kind>-<name>-<key8>` for the block; the same key resumes the same folder.

    The status on leaving is "done"; "refused" after `Finding`, "stopped" after `Stopped`, "failed" otherwise.

    Raises:
        CauserieError: CAU-1004 when another process owns it, CAU-1011 for a name that cannot be a folder's.
    """
    folder = workspace / "runs" / f"{kind}-{folder_name(name)}-{key[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="utf-8") as lock:
        _take(lock, folder)
        _drop_half_line(folder / "events.jsonl")
        with open(folder / "events.jsonl", "a", encoding="utf-8", newline="\n") as events:
            run = Run(folder, kind, name, dict(config), _events=events)
            run.write_status("running")
            try:
                yield run
            except BaseException as error:
                run.write_status(_status_after(error), _error_dict(error))
                raise
            run.write_status("done")


def _drop_half_line(path: Path) -> None:
    """Cut a last line that a killed owner left half written, so that the next event begins a line of its own."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _take(lock: IO[str], folder: Path) -> None:
    """Take the lock; a few tries, because a reader that asks `is_owned` holds it for a moment."""
    for last in (False, False, False, True):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if last:
                raise _in_use(lock, folder) from error
            time.sleep(0.05)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _in_use(lock: IO[str], folder: Path) -> CauserieError:
    lock.seek(0)
    holder = lock.read().strip() or "unknown"
    return CauserieError(
        "CAU-1004",
        f"the run is in use by process {holder}",
        where=str(folder),
        fix="wait for it to end, or stop that process",
    )


def _status_after(error: BaseException) -> Status:
    if isinstance(error, Finding):
        return "refused"
    return "stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"


def _error_dict(error: BaseException) -> dict[str, str]:
    if isinstance(error, CauserieError):
        return error.as_dict()
    return {"code": type(error).__name__, "cause": str(error), "where": "", "fix": ""}


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a run's `run.json`; a run whose owner died while running reads as "stopped".

    Raises:
        CauserieError: CAU-1001 and CAU-1003 for the file, CAU-1012 when it does not say what a run is.
    """
    state: dict[str, Any] = read_json(folder / "run.json")
    kinds: dict[str, Any] = {**dict.fromkeys(("id", "kind", "name", "status"), str), "updated": (int, float)}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        cause, fix = "run.json does not say what the run is", "delete the run's folder"
        raise CauserieError("CAU-1012", cause, where=str(folder / "run.json"), fix=fix)
    if state["status"] == "running" and not is_owned(folder):
        state["status"] = "stopped"
    return state


def is_owned(folder: Path) -> bool:
    """Whether a living process owns the run."""
    try:
        with open(folder / "lock", "rb") as lock:  # for reading: others' runs may be looked at, too
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two readers do not take each other for owners
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def read_events(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    """Events of a run from line `after` on; a last line still being written is left out.

    Raises:
        CauserieError: CAU-1006 with the number of the first line that is no JSON object.
    """
    path = folder / "events.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [parse_line(line, path, number) for number, line in enumerate(lines[after:], after + 1)]
