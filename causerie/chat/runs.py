"""Runs as the page shows them: what long work is doing or did, read from its run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from causerie.chat.errors import not_found
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
    return {**kept, "result": _plain(state.get("result")), **progress_of(events)}


def _plain(result: Any) -> dict[str, Any]:
    pairs = result.items() if isinstance(result, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str | int | float | bool)}


def run_events(workspace: Path, run_id: str, after: int = 0) -> dict[str, Any]:
    """Events of one run from line `after` on, and where to go on from.

    Raises:
        CauserieError: CAU-6102 when there is no such run.
    """
    folder = workspace / "runs" / run_id
    if Path(run_id).name != run_id or not (folder / "run.json").is_file():
        raise not_found("run", run_id)
    events = safe_events(folder, after)
    return {"run": read_run(folder), "events": events, "next": after + len(events)}


def safe_events(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    """`core.read_events`, but a line damaged by a crash hides nothing except itself and what follows."""
    try:
        return read_events(folder, after)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return []


def progress_of(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where a run stands, from its events.

    Returns:
        `stages` (name and start time, in order), `step`, `total`, `seconds_left` (None when unknown) of the stage
        under way, and `curve`: at most 240 points `[step, loss]` of the last stage that logged a loss.
    """
    stages = [
        {"name": str(event.get("name", "")), "time": float(event.get("time", 0))}
        for event in events
        if event.get("event") == "stage"
    ]
    started = stages[-1]["time"] if stages else 0.0
    current = [event for event in events if event.get("event") == "step" and float(event.get("time", 0)) >= started]
    last = current[-1] if current else {}
    return {
        "stages": stages,
        "step": last.get("step"),
        "total": last.get("total"),
        "seconds_left": _seconds_left(current),
        "curve": loss_curve(events),
    }


def _seconds_left(steps: Sequence[Mapping[str, Any]]) -> float | None:
    if len(steps) < 2 or not steps[-1].get("total"):
        return None
    first, last = steps[0], steps[-1]
    done = float(last.get("step", 0)) - float(first.get("step", 0))
    took = float(last.get("time", 0)) - float(first.get("time", 0))
    if done <= 0:
        return None
    return round(max(0.0, (float(last["total"]) - float(last["step"])) * took / done), 1)


def loss_curve(events: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """`[[step, loss], ...]` of the last stage that logged losses, thinned evenly; the last point is kept."""
    curve: list[list[float]] = []
    ended = False
    for event in events:
        if event.get("event") == "stage":
            ended = True
            continue
        loss = next((event[key] for key in LOSS_KEYS if isinstance(event.get(key), int | float)), None)
        if event.get("event") != "step" or loss is None:
            continue
        if ended:
            curve, ended = [], False
        curve.append([float(event.get("step", len(curve))), float(loss)])
    if len(curve) <= CURVE_POINTS:
        return curve
    stride = len(curve) / (CURVE_POINTS - 1)
    return [curve[int(index * stride)] for index in range(CURVE_POINTS - 1)] + [curve[-1]]
