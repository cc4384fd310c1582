"""One turn at a time: a lock on a model's name that dies with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from causerie.core import CauserieError


@contextmanager
def one_turn(workspace: Path, name: str, kind: str = "turn") -> Iterator[None]:
    """Hold `<workspace>/runs/<kind>-<name>.lock` for the block.

    Raises:
        CauserieError: CAU-5104 when another process holds it.
    """
    path = workspace / "runs" / f"{kind}-{name.replace('/', '_')}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise CauserieError(
                "CAU-5104",
                f"process {lock.read().strip() or 'unknown'} turns the loop for {name!r}",
                where=str(path),
                fix="wait for its verdict, or stop that process",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
