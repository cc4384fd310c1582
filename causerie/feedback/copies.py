"""Where feedback was written outside of the workspace's own folders: an erasure reads it to know what to name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

FILE: Final = "feedback-copies.jsonl"
"""File of the workspace: one line for each export, and for each training set with a place of its own."""


def note_copy(workspace: Path, place: Path, form: str) -> None:
    """Remember that feedback was written to a place; the same place again adds nothing."""
    entry = {"path": str(place.resolve()), "form": form}
    if entry in _entries(workspace):
        return
    workspace.mkdir(parents=True, exist_ok=True)
    with open(workspace / FILE, "a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def copies_outside(workspace: Path, form: str = "") -> tuple[str, ...]:
    """Places that feedback was written to; training sets ("preferences") only, or those of another form, when asked."""
    return tuple(entry["path"] for entry in _entries(workspace) if form in ("", entry["form"]))


def _entries(workspace: Path) -> list[dict[str, str]]:
    path = workspace / FILE
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:  # a line that a crash left half written
            continue
    return [entry for entry in found if isinstance(entry, dict) and {"path", "form"} <= entry.keys()]
