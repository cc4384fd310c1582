"""Runs as the page shows them: what long work is doing or did, read from its run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from causerie.chat.errors import not_found
from causerie.chat.predictions import prediction_for
from causerie.core import CauserieError, read_events, read_run

CURVE_POINTS: Final = 240
LOSS_KEYS: Final = ("loss", "train_loss")


def list_runs(workspace: Path, limit: int = 100) -> list[dict[str, Any]]:
    """The newest runs with status, progress and loss curve; unreadable folders are left out."""
    states = []
    for folder in (workspace / "runs").glob("*/run.json"):
        try:
            states.append(read_run(folder.parent))
        except (CauserieError, KeyError):
            continue
    states.sort(key=lambda state: float(state.get("updated", 0)), reverse=True)
    return [_summary(workspace, state) for state in states[:limit]]


def _summary(workspace: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    events = safe_events(workspace / "runs" / str(state["id"]))
    kept = {key: state.get(key) for key in ("id", "kind", "name", "status", "updated", "error")}
    expected = prediction_for(workspace, str(state["id"]), str(state.get("name", "")))
    return {**kept, "result": _plain(state.get("result")), "prediction": expected, **progress_of(events)}


def _plain(result: Any) -> dict[str, Any]:
    pairs = result.items() if isinstance(result, dict) else ()
    return {key: finite(value) for key, value in pairs if isinstance(value, str | int | float | bool)}


def run_events(workspace: Path, run_id: str, after: int = 0) -> dict[str, Any]:
    """Events of one run from line `after` on, and where to go on from.

    Raises:
        CauserieError: CAU-6102 when there is no such run.
    """
    folder = workspace / "runs" / run_id
    if Path(run_id).name != run_id or not (folder / "run.json").is_file():
        raise not_found("run", run_id)
    events = safe_events(folder, after)
    return {"run": finite(read_run(folder)), "events": events, "next": after + len(events)}


def safe_events(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    """`core.read_events` with figures that JSON can carry; a file damaged by a crash reads as empty."""
    try:
        return [finite(event) for event in read_events(folder, after)]
    except (json.JSONDecodeError, UnicodeDecodeError):
        return []


def finite(value: Any) -> Any:
    """A JSON value with every NaN and infinity replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def progress_of(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where a run stands, from its events.

    Returns:
        `stages` (name and start time, in order); `step`, `total`, `share` done (0 to 1), `seconds_left`,
        `steps_per_second` and `tokens_per_second` of the stage under way, each None when unknown; `curve`: see
        `loss_curve`.
    """
    stages: list[dict[str, Any]] = []
    current: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("event") == "stage":
            stages.append({"name": str(event.get("name", "")), "time": _figure(event, "time") or 0.0})
            current = []
        elif event.get("event") == "step":
            current.append(event)
    last = current[-1] if current else {}
    step, total = _figure(last, "step"), _figure(last, "total")
    left = _figure(last, "seconds_left")
    left = _seconds_left(current) if left is None else left
    share = step / total if step is not None and total else _share_of_time(last, left)
    return {
        "stages": stages,
        "step": step,
        "total": total,
        "share": None if share is None else min(1.0, round(share, 4)),
        "seconds_left": left,
        "steps_per_second": _rate(current),
        "tokens_per_second": _figure(last, "tokens_per_second"),
        "curve": loss_curve(events),
    }


def _figure(event: Mapping[str, Any], name: str) -> float | None:
    value = event.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _share_of_time(last: Mapping[str, Any], left: float | None) -> float | None:
    passed = _figure(last, "seconds")
    return passed / (passed + left) if passed and left is not None else None


def _rate(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """Steps a second since the stage's first step; steps that take long count as fractions."""
    if len(steps) < 2:
        return None
    first, last = steps[0], steps[-1]
    done = (_figure(last, "step") or 0.0) - (_figure(first, "step") or 0.0)
    took = (_figure(last, "time") or 0.0) - (_figure(first, "time") or 0.0)
    return done / took if done > 0 and took > 0 else None


def _seconds_left(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """Time left at the rate so far, when the events say how many steps there are in all."""
    rate, last = _rate(steps), steps[-1] if steps else {}
    total = _figure(last, "total")
    if rate is None or total is None:
        return None
    return round(max(0.0, (total - (_figure(last, "step") or 0.0)) / rate), 1)


def loss_curve(events: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """`[[step, loss], ...]` of the last stage that logged losses, thinned evenly; the last point is kept."""
    curve: list[list[float]] = []
    ended = False
    for event in events:
        if event.get("event") == "stage":
            ended = True
            continue
        loss = next((event[key] for key in LOSS_KEYS if _figure(event, key) is not None), None)
        if event.get("event") != "step" or loss is None:
            continue
        if ended:
            curve, ended = [], False
        step = _figure(event, "step")
        curve.append([float(len(curve)) if step is None else step, float(loss)])
    if len(curve) <= CURVE_POINTS:
        return curve
    stride = len(curve) / (CURVE_POINTS - 1)
    return [curve[int(index * stride)] for index in range(CURVE_POINTS - 1)] + [curve[-1]]
