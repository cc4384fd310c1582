"""Progress and curves from run events."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from causerie.chat.runs import finite, list_runs, loss_curve, progress_of, run_events
from causerie.core import CauserieError, open_run


def steps(count: int, total: int | None = None) -> list[dict[str, object]]:
    return [
        {"event": "step", "step": step, "loss": 5.0 - step, "total": total, "time": step * 2.0} for step in range(count)
    ]


def test_a_curve_keeps_its_first_and_last_point_when_thinned() -> None:
    curve = loss_curve([{"event": "step", "step": step, "loss": math.sin(step)} for step in range(5000)])
    assert len(curve) == 240
    assert curve[0] == [0.0, 0.0]
    assert curve[-1] == [4999.0, math.sin(4999)]
    assert [step for step, _ in curve] == sorted(step for step, _ in curve)


def test_a_curve_belongs_to_the_last_stage_that_logged_losses() -> None:
    events = [
        {"event": "stage", "name": "sft"},
        *steps(3),
        {"event": "stage", "name": "dpo"},
        *steps(2),
        {"event": "stage", "name": "gate"},
    ]
    assert loss_curve(events) == [[0.0, 5.0], [1.0, 4.0]]
    assert progress_of(events)["step"] is None


def test_time_left_is_estimated_from_the_rate_or_taken_from_the_run() -> None:
    assert progress_of(steps(5, total=10)) | {"curve": []} == {
        "stages": [], "step": 4.0, "total": 10.0, "share": 0.4, "seconds_left": 12.0, "curve": [],
        "steps_per_second": 0.5, "tokens_per_second": None,
    }  # fmt: skip
    told = progress_of([{"event": "step", "step": 7, "loss": 1.0, "seconds": 30.0, "seconds_left": 10.0}])
    assert (told["share"], told["seconds_left"]) == (0.75, 10.0)
    assert progress_of([{"event": "step", "step": 1, "loss": float("nan")}])["seconds_left"] is None


def test_figures_that_json_cannot_carry_become_none() -> None:
    assert finite({"a": [math.nan, 1.5, {"b": -math.inf}], "c": "x"}) == {"a": [None, 1.5, {"b": None}], "c": "x"}


def test_runs_are_listed_newest_first_and_damaged_ones_left_out(workspace: Path) -> None:
    for name in ("one", "two"):
        with open_run(workspace, "sft", name, name[0] * 64, {}) as run:
            run.log("step", step=1, loss=2.0)
            run.result.update(tokens=3, curve=[1, 2])
    (workspace / "runs" / "broken").mkdir()
    (workspace / "runs" / "broken" / "run.json").write_text("{")
    listed = list_runs(workspace)
    assert {run["name"] for run in listed} == {"one", "two"}
    assert listed[0]["updated"] >= listed[1]["updated"]
    assert listed[0]["result"] == {"tokens": 3}


def test_a_line_still_being_written_is_left_out_and_bad_names_are_refused(workspace: Path) -> None:
    with open_run(workspace, "sft", "one", "a" * 64, {}) as run:
        run.log("step", step=1, loss=2.0)
        with open(run.path / "events.jsonl", "a") as file:
            file.write('{"event": "st')
        assert run_events(workspace, run.id)["next"] == 1
    for name in ("..", "../runs", "nothing", "."):
        with pytest.raises(CauserieError) as caught:
            run_events(workspace, name)
        assert caught.value.code == "CAU-6102"
