"""The one error type of the package: a stable code, a cause, a place and a fix."""

from __future__ import annotations

from typing import Final

ERRORS: Final = {
    "CAU-1001": "A path that should exist does not.",
    "CAU-1002": "An artifact is incomplete or damaged.",
    "CAU-1003": "A manifest cannot be read.",
    "CAU-1004": "A run folder is in use by another process.",
    "CAU-1005": "A configuration value is unknown or has the wrong type.",
    "CAU-1006": "A line of a JSONL file cannot be read.",
    "CAU-1007": "Writing failed: no space, no permission or a read-only folder.",
    "CAU-1008": "An optional package is not installed.",
    "CAU-1009": "Something that must not be overwritten stands where an artifact should be written.",
    "CAU-1010": "An artifact is of another kind than is needed here.",
    "CAU-1011": "A name or path cannot be used for a folder.",
    "CAU-1012": "A run's folder is damaged.",
}
"""Codes raised by this room and what each means; every room has such a table in its `errors.py`."""


class CauserieError(Exception):
    """Bad input or a state that the user can mend: printed without a traceback, exit status 2.

    Args:
        code: stable code such as `CAU-2001`, listed in the raising room's `ERRORS`.
        cause: what was wrong, with the offending value.
        where: file, line, field or flag it was found in.
        fix: what to do, as an imperative sentence.
    """

    exit_status: int = 2

    def __init__(self, code: str, cause: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"error {self.code}: {self.cause}"]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.fix:
            lines.append(f"hint: {self.fix}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str]:
        """The error as the JSON object that `--json` prints and the API returns."""
        return {"code": self.code, "cause": self.cause, "where": self.where, "fix": self.fix}


class Stopped(Exception):
    """Work was stopped on request with its state saved: exit status 75, run the command again to go on."""

    exit_status: int = 75


class Finding(Exception):
    """A command did its work and the answer is "no" (a failed gate, a failed check): exit status 1."""

    exit_status: int = 1


def need_package(module: str, extra: str) -> CauserieError:
    """The error for an optional package that is missing.

    Args:
        module: import name that was not found.
        extra: the extra of this package that brings it.
    """
    return CauserieError(
        "CAU-1008",
        f"the package {module!r} is not installed",
        where=f"extra {extra!r}",
        fix=f"run: pip install 'causerie[{extra}]'",
    )
