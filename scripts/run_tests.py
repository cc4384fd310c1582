"""`make test`; what failed of it is run once more, alone. Only the standard library.

    python3 scripts/run_tests.py make test

A test that fails in the crowd and passes alone says more about the test than about the change: it is named, loudly, and
has to be mended (docs/guides/testing.md), but does not hold the change up. That holds for few of them, and only when
pytest came to its end; one that fails again fails the check, as do more than `MOST`. The environment's UNSTEADY names a
file for their names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MOST = 5
"""Failed tests that are run again."""
CACHE = Path(".pytest_cache/v")
FAILED, FINISHED = CACHE / "cache/lastfailed", CACHE / "causerie/finished"
"""Written by pytest's own cache, and by tests/conftest.py: the tests that failed, and pytest's exit status."""
SOME_FAILED = 1
"""pytest's exit status when it ran to its end and tests failed."""


def run(arguments: str = "") -> int:
    """The exit status of the command that was given, `make test`, with these arguments for pytest."""
    FINISHED.unlink(missing_ok=True)
    return subprocess.run([*(sys.argv[1:] or ["make", "test"]), f"ARGS={arguments}"]).returncode


def found(path: Path) -> object:
    """What a file of the cache holds; None without it."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def say(*lines: str) -> None:
    """Tell, at once."""
    print("", *lines, sep="\n", flush=True)


def main() -> int:
    """The verdict, as an exit status."""
    FAILED.unlink(missing_ok=True)
    status = run()
    if status == 0:
        return 0
    failed, ended = found(FAILED), found(FINISHED)
    names = sorted(failed) if isinstance(failed, dict) else []
    whole = ended == SOME_FAILED and all("::" in name for name in names)  # a file that did not load has no "::"
    if not whole or not 0 < len(names) <= MOST:
        say(f"not run again: {len(names)} failed (at most {MOST} are), pytest ended with {ended}", *names[:MOST])
        return status
    say(f"=== {len(names)} failed: once more, alone")
    status = run("-n 0 --last-failed --last-failed-no-failures none")
    if status != 0:
        return status
    told = [f"UNSTEADY: {name}" for name in names]
    say("!" * 79, *told, "failed, and passed when run again, alone: to be mended (docs/guides/testing.md)", "!" * 79)
    if place := os.environ.get("UNSTEADY"):
        Path(place).write_text("\n".join([*told, ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
