"""`causerie keys`: API keys of a server that asks for them, from the machine that it runs on."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

from cyclopts import App, Parameter
from sqlalchemy import select

from causerie.cli.flags import JSON, WHOLE_OR_NONE, WORKSPACE, show
from causerie.core import CauserieError, workspace_path
from causerie.hub import record_audit
from causerie.serve import Limits, create_key, is_scope, revoke_key
from causerie.store import api_keys, open_store

app = App(name="keys", help="API keys: create, list, revoke.")


@app.command
def create(
    name: str,
    *,
    scope: Annotated[
        tuple[str, ...], Parameter(help="What it may do: inference, platform, manage, admin, *.", consume_multiple=1)
    ] = ("inference",),
    project: Annotated[str | None, Parameter(help="Whose objects it sees.")] = None,
    days: Annotated[WHOLE_OR_NONE, Parameter(help="Days until it is worth nothing.")] = None,
    tokens_per_minute: WHOLE_OR_NONE = None,
    tokens_per_day: WHOLE_OR_NONE = None,
    requests_per_minute: WHOLE_OR_NONE = None,
    workspace: WORKSPACE = None,
    json: JSON = False,
) -> None:
    """Make a key and show it, this once."""
    for each in scope:
        if not is_scope(each):
            raise CauserieError("CAU-6009", f"{each!r} is no scope", where="--scope", fix="see GET organization/scopes")
    numbers = {"days": days, "tokens-per-minute": tokens_per_minute, "tokens-per-day": tokens_per_day}
    for flag, number in {**numbers, "requests-per-minute": requests_per_minute}.items():
        if number is not None and number < 1:
            cause = f"a key with {number} is worth nothing"
            raise CauserieError("CAU-7001", cause, where=f"--{flag}", fix="give a number above 0, or leave it out")
    limits = Limits(tokens_per_minute, tokens_per_day, requests_per_minute)
    expires = None if days is None else time.time() + 86_400 * days
    with open_store(workspace_path(workspace)) as store:
        id, key = create_key(store, name, scopes=scope, project=project, expires=expires, limits=limits)
        record_audit(store, "command", "api_key.created", id, {"scopes": list(scope), "project": project})
    if json:
        show({"id": id, "key": key}, json)
    else:
        sys.stdout.write(f"{key}\n")


@app.command(name="list")
def list_(*, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Every key, without the keys themselves."""
    with open_store(workspace_path(workspace)) as store:
        rows = store.read(select(api_keys).order_by(api_keys.c.created))
    found: list[dict[str, Any]] = [
        {"id": row.id, "name": row.name, "begins": row.prefix, "scopes": row.scopes, "project": row.project}
        | {"expires": row.expires, "revoked": row.revoked, "used": row.used}
        for row in rows
    ]
    if json:
        show({"keys": found}, json)
        return
    for each in found:
        state = "revoked" if each["revoked"] else "in force"
        sys.stdout.write(f"{each['id']}  {each['begins']}…  {state:8}  {','.join(each['scopes']):20}  {each['name']}\n")


@app.command
def revoke(id: str, *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """End a key; a server under way notices within a second."""
    with open_store(workspace_path(workspace)) as store:
        if not revoke_key(store, id):
            raise CauserieError(
                "CAU-6009", f"no key in force has the id {id!r}", where="ID", fix="see: causerie keys list"
            )
        record_audit(store, "command", "api_key.deleted", id)
    if json:
        show({"id": id, "revoked": True}, json)
