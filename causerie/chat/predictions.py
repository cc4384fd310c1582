"""What was predicted for a run before it began, and how it came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def prediction_for(workspace: Path, run_id: str, name: str) -> dict[str, Any] | None:
    """What `causerie plan predict --out predictions/NAME.json` wrote down for a run.

    A file belongs to the run of its own name, and to the run that it was scored with; unreadable files are passed over.

    Returns:
        `loss`, `interval`, `created`, `file`, and `score`: `measured`, `relative_error`, `within_interval` and
        `made_before_run` of the last `causerie plan score`, None before it. None when nothing was predicted.
    """
    folder = workspace / "predictions"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            loss, interval = float(said["loss"]), [float(value) for value in said["interval"]]
            scores = list(said.get("scores", []))
            runs = {str(score.get("run", ""))[:8] for score in scores}
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            continue
        if path.stem == name or run_id.rpartition("-")[2] in runs:
            told = ("measured", "relative_error", "within_interval", "made_before_run")
            score = {key: scores[-1].get(key) for key in told} if scores else None
            return {
                "loss": loss,
                "interval": interval,
                "created": said.get("created"),
                "file": path.name,
                "score": score,
            }
    return None
