"""`causerie canary ...`: candidates on trial with a share of the conversations."""

from __future__ import annotations

from dataclasses import replace

from cyclopts import App

from causerie.cli.flags import JSON, WORKSPACE, show
from causerie.core import CauserieError, workspace_path
from causerie.loop import Canary, CanaryConfig, list_canaries, review_canary, running_canary, start_canary, stop_canary
from causerie.store import Store, open_store

app = App(name="canary", help="Candidates on trial with live conversations.", result_action="return_value")


@app.command(name="show")
def show_canaries(model: str = "", *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """What was or is on trial, newest first, as of the last look."""
    with open_store(workspace_path(workspace)) as store:
        show({"canaries": [canary.as_dict() for canary in list_canaries(store, model)]}, json, _table)


@app.command
def start(version: str, *, share: float = 0.2, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Let a registered version (NAME@N) answer a share of the conversations until live votes decide."""
    with open_store(workspace_path(workspace)) as store:
        show(start_canary(store, version, replace(CanaryConfig(), share=share), actor="cli").as_dict(), json, _line)


@app.command
def review(model: str, *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Look at the votes so far and act on them; as often as you like."""
    with open_store(workspace_path(workspace)) as store:
        show(review_canary(store, _running(store, model)).as_dict(), json, _line)


@app.command
def stop(model: str, *, reason: str = "by hand", workspace: WORKSPACE = None, json: JSON = False) -> None:
    """End the trial: the incumbent answers everywhere again."""
    with open_store(workspace_path(workspace)) as store:
        show(stop_canary(store, _running(store, model), reason).as_dict(), json, _line)


def _running(store: Store, model: str) -> Canary:
    canary = running_canary(store, model)
    if canary is None:
        raise CauserieError(
            "CAU-5108", f"no candidate of {model!r} is on trial", where="model", fix="see: causerie canary show"
        )
    return canary


def _line(canary: dict[str, object]) -> str:
    return f"{canary['candidate']} against {canary['incumbent']}: {canary['status']}. {canary['why']}"


def _table(shown: dict[str, list[dict[str, object]]]) -> str:
    return "\n".join(_line(canary) for canary in shown["canaries"]) or "no canary yet"
