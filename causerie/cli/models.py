"""`causerie models ...`: the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from causerie import hub
from causerie.cli.flags import JSON, WORKSPACE, show
from causerie.core import CauserieError, Finding, workspace_path
from causerie.store import Store, open_store

app = App(
    name="models",
    help="Versions: list, show, import, export, promote, roll back, verify.",
    result_action="return_value",
)
REF = Annotated[str, Parameter(help="Registry name, or name@number.")]


@app.command(name="list")
def list_models(name: str | None = None, *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """List registered versions; the promoted one of each name is marked."""
    folder = workspace_path(workspace)
    with open_store(folder) as store:
        rows = [version.as_dict() for version in hub.list_versions(store, name)]
        if name is not None and not rows:
            raise hub.unknown_model(store, name)
    nothing = f"no versions yet in {folder}; another workspace is named by --workspace or CAUSERIE_WORKSPACE"
    show({"versions": rows}, json, lambda r: "\n".join(_line(v) for v in r["versions"]) or nothing)


def _line(version: dict[str, Any]) -> str:
    mark = "*" if version["status"] == "promoted" else " "
    columns = (f"{version['ref']:24}", f"{version['status']:10}", f"{version['kind']:8}", version["key"][:8])
    return " ".join((mark, *columns, "", version["licence"]))


@app.command(name="show")
def show_model(ref: REF, *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Show a version: its card, its lineage down to votes, its terms."""
    folder = workspace_path(workspace)
    with open_store(folder) as store:
        tree = hub.lineage(store, folder, ref)
        card = hub.model_card(store, folder, hub.get_version(store, ref).ref)
    result = {"card": card, "lineage": tree.as_dict(), "tree": hub.render_lineage(tree)}
    show(result, json, lambda r: f"{r['card']}\n\n{r['tree']}")


@app.command(name="import")
def import_(
    source: Annotated[str, Parameter(help="A Hugging Face or artifact folder, or the word: starter.")],
    *,
    name: Annotated[str | None, Parameter(help="Registry name; the folder's name by default.")] = None,
    licence: Annotated[str, Parameter(help="Its licence or terms.")] = "",
    promote: Annotated[bool, Parameter(help="Let its name stand for it at once.")] = True,
    vocabulary: Annotated[Literal["full", "en-fr"], Parameter(help="Starter only: which tokens to keep.")] = "en-fr",
    workspace: WORKSPACE = None,
    json: JSON = False,
) -> None:
    """Bring a model into the workspace and register it."""
    folder = workspace_path(workspace)
    with open_store(folder) as store:
        if source == "starter" and not Path(source).is_dir():
            from causerie.starter import StarterConfig, register_starter

            _refuse_flags_of_folders(name, licence, promote)
            version = register_starter(StarterConfig(vocabulary=vocabulary), folder, store)
        else:
            version = _import_folder(store, folder, Path(source), name, licence, promote)
    show(version.as_dict(), json, lambda v: f"{v['ref']} ({v['status']}): {v['artifact']}\nlicence: {v['licence']}")


def _import_folder(
    store: Store, workspace: Path, path: Path, name: str | None, licence: str, promote: bool
) -> hub.Version:
    from causerie.model import check_model

    if path.is_dir():
        hub.folder_kind(path)
        check_model(path)
    status: Literal["promoted", "candidate"] = "promoted" if promote else "candidate"
    called = path.absolute().name if name is None else name
    version = hub.import_model(store, workspace, path, called, licence=licence, status=status)
    if promote and version.status == "candidate":  # it was here already
        return hub.promote(store, version.ref, actor="cli", reason="imported again")
    return version


def _refuse_flags_of_folders(name: str | None, licence: str, promote: bool) -> None:
    """The starter brings its name and its terms; a flag that would do nothing is an error, not a silence.

    Raises:
        CauserieError: CAU-7001.
    """
    given = {"--name": name, "--licence": licence, "--no-promote": not promote}
    for flag, value in given.items():
        if value:
            cause = f"{flag} does not go with the starter, which has its own name and terms"
            raise CauserieError("CAU-7001", cause, where=f"models import starter {flag}", fix=f"leave {flag} out")


@app.command
def export(
    ref: REF,
    out: Annotated[Path, Parameter(help="Folder to write.")],
    *,
    form: Annotated[
        Literal["hf", "gguf"], Parameter(name="--format", help="hf: a Hugging Face folder. gguf: llama.cpp's file.")
    ] = "hf",
    dtype: Annotated[Literal["f32", "f16", "q8_0"], Parameter(help="gguf only: type of the matrices.")] = "f16",
    workspace: WORKSPACE = None,
    json: JSON = False,
) -> None:
    """Copy a version out for others to run (an adapter is merged), with its card and its terms."""
    from causerie.demo import export_gguf, export_version

    folder = workspace_path(workspace)
    with open_store(folder) as store:
        if form == "gguf":
            show(export_gguf(store, folder, ref, out, dtype=dtype), json)
        else:
            show(export_version(store, folder, ref, out), json)


@app.command
def promote(ref: REF, *, reason: str = "", workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Let a name stand for this version."""
    with open_store(workspace_path(workspace)) as store:
        show(hub.promote(store, ref, actor="cli", reason=reason).as_dict(), json, lambda v: f"promoted: {v['ref']}")


@app.command
def rollback(name: str, *, reason: str = "", workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Go back to the version promoted before."""
    with open_store(workspace_path(workspace)) as store:
        show(hub.rollback(store, name, actor="cli", reason=reason).as_dict(), json, lambda v: f"serving: {v['ref']}")


@app.command
def verify(ref: REF, *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Recompute every digest of a version's files, and the audit chain."""
    folder = workspace_path(workspace)
    with open_store(folder) as store:
        found = hub.verify_version(store, folder, ref)
    show(found, json)
    if not found.ok:
        raise Finding(f"{ref} does not verify")
