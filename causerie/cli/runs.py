"""`causerie runs ...`: read run folders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from causerie.cli.flags import JSON, WORKSPACE, show
from causerie.core import CauserieError, read_events, read_run, workspace_path

app = App(name="runs", help="What long work is doing or did.", result_action="return_value")
RUN = Annotated[str, Parameter(help="Name of the run's folder, or the beginning of it.")]


@app.command(name="list")
def list_runs(*, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """List runs, newest first."""
    folders = [path.parent for path in (workspace_path(workspace) / "runs").glob("*/run.json")]
    rows = sorted(map(_row, folders), key=lambda row: row["updated"], reverse=True)
    show({"runs": rows}, json, lambda result: "\n".join(_line(row) for row in result["runs"]) or "no runs yet")


def _row(folder: Path) -> dict[str, Any]:
    """A run in short; one that cannot be read does not hide the others."""
    try:
        state = read_run(folder)
    except CauserieError as error:
        facts = {"id": folder.name, "kind": "", "name": "", "status": "damaged"}
        return {**facts, "updated": folder.stat().st_mtime, "cause": error.cause}
    return {key: state[key] for key in ("id", "kind", "name", "status", "updated")}


@app.command(name="show")
def show_run(run: RUN, *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Show a run's state, its result and its last events."""
    folder = find_run(workspace_path(workspace), run)
    show({**read_run(folder), "events": read_events(folder)[-20:]}, json)


@app.command(name="plot")
def plot_run(
    run: RUN,
    *,
    out: Annotated[Path | None, Parameter(help="Folder for the pictures; the run's own by default.")] = None,
    workspace: WORKSPACE = None,
    json: JSON = False,
) -> None:
    """Draw a training run's loss curve: loss.svg and loss.png."""
    from causerie.train import loss_curve, plot_loss

    folder = find_run(workspace_path(workspace), run)
    target = out or folder
    if not loss_curve(folder):
        raise CauserieError("CAU-7003", "the run has no training steps", where=str(folder), fix="choose a training run")
    kind, name = (read_run(folder)[key] for key in ("kind", "name"))
    plot_loss(folder, target, f"{kind} {name}", (), "", per_token=kind in ("pretrain", "sft"))
    show({"path": str(target), "files": ["loss.svg", "loss.png"]}, json)


def find_run(workspace: Path, name: str) -> Path:
    """The run folder whose name is or begins with `name`.

    Raises:
        CauserieError: CAU-1001 when none or several do.
    """
    folders = sorted(path.parent for path in (workspace / "runs").glob("*/run.json"))
    exact = [f for f in folders if f.name == name]
    found = exact or [f for f in folders if f.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f.name for f in found or folders) or "none"
    cause = f"no run named {name!r}" if not found else f"{name!r} may be several runs"
    raise CauserieError("CAU-1001", cause, where=str(workspace / "runs"), fix=f"choose one of: {names}")


def _line(row: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["updated"]))
    why = f": {row['cause']}" if "cause" in row else ""
    return f"{when}  {row['status']:8}  {row['id']}{why}"
