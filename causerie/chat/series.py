"""One run in full: every figure it logged as a series, its samples, and what was predicted for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from causerie.chat.errors import not_found
from causerie.chat.predictions import prediction_for
from causerie.chat.reports import reports_behind
from causerie.chat.runs import finite, progress_of, safe_events
from causerie.core import read_run

POINTS: Final = 600
"""Points of a series at most; longer ones are thinned evenly, first and last kept."""
SHOWN: Final = ("loss", "bits_per_byte", "tokens_per_second", "peak_share", "lr", "grad_norm", "margin", "accuracy")
"""Figures that come first, in this order; the others follow by name."""
HIDDEN: Final = frozenset({"step", "time", "seconds", "seconds_left", "total", "step_seconds", "cpu_seconds", "tokens"})


def run_in_full(workspace: Path, run_id: str) -> dict[str, Any]:
    """A run with its series.

    Returns:
        `run`: as its folder says; `progress`: see `runs.progress_of`; `series`: `{"name", "points"}` each;
        `samples`: texts with the step they were drawn at; `prediction`: see `prediction_for`, or None; `reports`: of
        the data that it made or read, see `reports_behind`.

    Raises:
        CauserieError: CAU-6102 when there is no such run.
    """
    folder = workspace / "runs" / run_id
    if Path(run_id).name != run_id or not (folder / "run.json").is_file():
        raise not_found("run", run_id)
    events, state = safe_events(folder), finite(read_run(folder))
    return {
        "run": state,
        "progress": {key: value for key, value in progress_of(events).items() if key != "curve"},
        "series": series_of(events),
        "samples": samples_of(events, state),
        "prediction": prediction_for(workspace, run_id, str(state.get("name", ""))),
        "reports": reports_behind(workspace, run_id, state.get("config")),
    }


def series_of(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every figure of the `step` and `eval` events against the step, thinned."""
    found: dict[str, list[list[float]]] = {}
    for event in events:
        kind, step = event.get("event"), event.get("step")
        if kind not in ("step", "eval", "evaluation", "validation") or not isinstance(step, int | float):
            continue
        for name, value in event.items():
            if name in HIDDEN or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            found.setdefault(name if kind == "step" else f"held-out {name}", []).append([float(step), float(value)])
    order = {name: place for place, name in enumerate(SHOWN)}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return [{"name": name, "points": thinned(found[name])} for name in names]


def thinned(points: Sequence[list[float]]) -> list[list[float]]:
    """At most `POINTS` of the points, one for each step (the last logged wins), in the order of the steps."""
    last = {point[0]: point for point in points}
    ordered = [last[step] for step in sorted(last)]
    if len(ordered) <= POINTS:
        return ordered
    stride = len(ordered) / (POINTS - 1)
    return [ordered[int(index * stride)] for index in range(POINTS - 1)] + [ordered[-1]]


def samples_of(events: Iterable[Mapping[str, Any]], state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the model wrote at times: `{"step", "text"}`; step None for those of the run's end."""
    found: list[dict[str, Any]] = []
    for event in events:
        if event.get("event") in ("sample", "samples"):
            texts = event.get("texts", event.get("samples", [event.get("text", "")]))
            found += [{"step": event.get("step"), "text": str(text)[:2_000]} for text in texts if text]
    result = state.get("result")
    last = result.get("samples", []) if isinstance(result, dict) else []
    return found + [{"step": None, "text": str(text)[:2_000]} for text in last if isinstance(text, str)]
