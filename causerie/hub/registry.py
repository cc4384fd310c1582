"""The registry: named, numbered model versions, one of each name promoted; every change is in the audit log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from sqlalchemy import Connection, Select, func, insert, select, update

from causerie.core import Artifact, CauserieError, sha256_file
from causerie.hub.audit import append_audit, audited
from causerie.hub.suggest import unknown_model
from causerie.hub.terms import combine_licences, combine_notices, inherited_notices
from causerie.store import Store, check_text, new_id, now, versions

Status = Literal["candidate", "promoted", "retired", "refused"]
STATUSES: Final[tuple[str, ...]] = get_args(Status)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REF = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]{0,63})(?:@(?P<number>[1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Version:
    """A registered model: an artifact under a name and number.

    `artifact` is its folder relative to the workspace (absolute when it lies elsewhere); `parents` are references
    such as `home@2`; `promoted` is when it last became the promoted version.
    """

    id: str
    name: str
    number: int
    artifact: str
    key: str
    kind: str
    parents: tuple[str, ...]
    licence: str
    notices: tuple[str, ...]
    card: dict[str, Any]
    status: Status
    promoted: float | None
    created: float

    @property
    def ref(self) -> str:
        """The reference `name@number`."""
        return f"{self.name}@{self.number}"

    def path(self, workspace: Path) -> Path:
        """The artifact's folder."""
        return workspace / self.artifact

    def as_dict(self) -> dict[str, Any]:
        """The version as plain JSON values."""
        return {"ref": self.ref, **asdict(self)}


def register(
    store: Store,
    workspace: Path,
    name: str,
    artifact: Artifact,
    *,
    parents: Sequence[str] = (),
    licence: str = "",
    notices: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
    status: Status = "candidate",
    actor: str = "causerie",
) -> Version:
    """Register an artifact as the next version of a name; the same artifact again returns the version it has.

    Notices of the artifact, of everything in its lineage that is in the workspace, and of its parents are passed
    on, and licences combined: terms that came with a base model stay with every derivative.

    Args:
        store: the store.
        workspace: the workspace.
        name: lower-case letters, digits, dot, dash, underscore.
        artifact: a finished model or adapter.
        parents: references of versions that it was made from.
        licence: SPDX expression or name of its terms; the parents' when empty.
        notices: texts that must travel with it.
        card: plain JSON worth showing, such as an evaluation.
        status: "promoted" promotes it at once.
        actor: who acts, for the audit log.

    Raises:
        CauserieError: CAU-5002 for a bad name, status or an unknown parent.
    """
    _check_new(name, status, artifact)
    check_text([licence, list(notices), dict(card or {})], "version")
    facts: dict[str, Any] = {
        "name": name,
        "artifact": _relative(artifact.path, workspace),
        "key": artifact.key,
        "kind": artifact.manifest.kind,
        "card": dict(card or {}),
    }
    own = combine_notices(notices, artifact.manifest.notices, inherited_notices(workspace, artifact))
    manifest_digest = sha256_file(artifact.path / "manifest.json")

    def work(connection: Connection) -> Version:
        there = _one(connection, select(versions).where(versions.c.name == name, versions.c.key == artifact.key))
        if there is not None:
            return there
        version = _add_version(
            connection, facts, parents, licence, own, "candidate" if status == "promoted" else status
        )
        detail = {"key": version.key, "manifest": manifest_digest, "licence": version.licence, "status": status}
        append_audit(connection, actor, "register", version.ref, detail)
        return _promote(connection, version, actor, "at registration") if status == "promoted" else version

    return audited(store, work)


def _add_version(
    connection: Connection,
    facts: Mapping[str, Any],
    parents: Sequence[str],
    licence: str,
    notices: Sequence[str],
    status: Status,
) -> Version:
    """A new row under the next number of its name, not promoted yet; the parents' licences and notices join its own."""
    elders = [_parent(connection, parent) for parent in parents]
    version = Version(
        id=new_id("ver"),
        number=1 + (connection.execute(_newest_number(facts["name"])).scalar() or 0),
        parents=tuple(elder.ref for elder in elders),
        licence=combine_licences([licence, *(elder.licence for elder in elders)]),
        notices=combine_notices(notices, *(elder.notices for elder in elders)),
        status="candidate" if status == "promoted" else status,
        promoted=None,
        created=now(),
        **facts,
    )
    connection.execute(insert(versions).values(**_row(version)))
    return version


def promote(store: Store, ref: str, *, actor: str = "causerie", reason: str = "") -> Version:
    """Make a version the one that its name stands for; the one before is retired and can be gone back to.

    Raises:
        CauserieError: CAU-5001 when it is not registered; CAU-5003 when it was refused.
    """

    def work(connection: Connection) -> Version:
        version = _numbered(connection, store, ref)
        if version.status == "refused":
            raise CauserieError(
                "CAU-5003", f"{version.ref} was refused", where=ref, fix="register a new version, or choose another"
            )
        return version if version.status == "promoted" else _promote(connection, version, actor, reason)

    return audited(store, work)


def rollback(store: Store, name: str, *, actor: str = "causerie", reason: str = "") -> Version:
    """Go back to the version of a name that was promoted before; the present one becomes refused.

    Raises:
        CauserieError: CAU-5001 when the name has no promoted version; CAU-5005 when there was none before it.
    """

    def work(connection: Connection) -> Version:
        present = _one(connection, _of(name).where(versions.c.status == "promoted"))
        if present is None:
            raise unknown_model(store, name)
        earlier = _of(name).where(versions.c.status == "retired", versions.c.promoted.is_not(None))
        before = _one(connection, earlier.order_by(versions.c.promoted.desc(), versions.c.number.desc()).limit(1))
        if before is None:
            raise CauserieError(
                "CAU-5005", f"{present.ref} is the first promoted version of {name}", where=name, fix="promote another"
            )
        _set(connection, present, status="refused")
        append_audit(connection, actor, "rollback", present.ref, {"to": before.ref, "reason": reason})
        return _promote(connection, before, actor, reason or f"rollback of {present.ref}")

    return audited(store, work)


def retire(store: Store, ref: str, *, actor: str = "causerie", reason: str = "") -> Version:
    """Take a version out of use: it is not offered, and a rollback passes over it.

    Raises:
        CauserieError: CAU-5001 when it is not registered; CAU-5003 when it is the promoted one.
    """
    return _leave(store, ref, "retired", actor, reason)


def refuse(store: Store, ref: str, *, actor: str = "causerie", reason: str = "") -> Version:
    """Record that a candidate failed its gate.

    Raises:
        CauserieError: CAU-5001 when it is not registered; CAU-5003 when it is the promoted one.
    """
    return _leave(store, ref, "refused", actor, reason)


def set_card(store: Store, ref: str, card: Mapping[str, Any], *, actor: str = "causerie") -> Version:
    """Add to what a version's card says, such as the evaluation made after registration (keys replace keys).

    Raises:
        CauserieError: CAU-5001 when it is not registered.
    """
    check_text(dict(card), "card")

    def work(connection: Connection) -> Version:
        version = _numbered(connection, store, ref)
        append_audit(connection, actor, "card", version.ref, {"fields": sorted(card)})
        return _set(connection, version, card={**version.card, **card})

    return audited(store, work)


def list_versions(store: Store, name: str | None = None, status: Status | None = None) -> list[Version]:
    """Registered versions by name and number, of one name or status when given."""
    query = select(versions).order_by(versions.c.name, versions.c.number)
    query = query.where(versions.c.name == name) if name else query
    query = query.where(versions.c.status == status) if status else query
    return [_version(row._asdict()) for row in store.read(query)]


def get_version(store: Store, ref: str) -> Version:
    """The version that `name@number` or `name` (the promoted one) stands for.

    Raises:
        CauserieError: CAU-5001, naming what is near, when there is none.
    """
    match = _REF.fullmatch(ref)
    if match is None:
        raise unknown_model(store, ref)
    query = _of(match["name"])
    number = match["number"]
    query = query.where(versions.c.number == int(number)) if number else query.where(versions.c.status == "promoted")
    row = store.first(query)
    if row is None:
        raise unknown_model(store, ref)
    return _version(row._asdict())


def version_by_key(store: Store, key: str) -> Version | None:
    """The newest version whose artifact has this key, or None."""
    row = store.first(select(versions).where(versions.c.key == key).order_by(versions.c.created.desc()))
    return None if row is None else _version(row._asdict())


def _promote(connection: Connection, version: Version, actor: str, reason: str) -> Version:
    before = _one(connection, _of(version.name).where(versions.c.status == "promoted"))
    if before is not None:
        _set(connection, before, status="retired")
    moment = now()
    latest = connection.execute(select(func.max(versions.c.promoted)).where(versions.c.name == version.name)).scalar()
    moment = max(moment, (latest or 0.0) + 0.001)  # promotions have an order even within a millisecond
    detail = {"key": version.key, "instead_of": before.ref if before else None, "reason": reason}
    append_audit(connection, actor, "promote", version.ref, detail)
    return _set(connection, version, status="promoted", promoted=moment)


def _leave(store: Store, ref: str, status: Literal["retired", "refused"], actor: str, reason: str) -> Version:
    def work(connection: Connection) -> Version:
        version = _numbered(connection, store, ref)
        if version.status == "promoted":
            raise CauserieError(
                "CAU-5003",
                f"{version.ref} is the promoted version",
                where=ref,
                fix="promote another or roll back first",
            )
        append_audit(connection, actor, status, version.ref, {"reason": reason})
        return _set(connection, version, status=status, promoted=None)

    return audited(store, work)


def _set(connection: Connection, version: Version, **values: Any) -> Version:
    connection.execute(update(versions).where(versions.c.id == version.id).values(**values))
    return Version(**{**vars(version), **values})


def _numbered(connection: Connection, store: Store, ref: str) -> Version:
    match = _REF.fullmatch(ref)
    if match is None or match["number"] is None:
        raise CauserieError(
            "CAU-5001", f"{ref!r} does not say which version", where=ref, fix="write it as name@number, such as home@3"
        )
    found = _one(connection, _of(match["name"]).where(versions.c.number == int(match["number"])))
    if found is None:
        raise unknown_model(store, ref)
    return found


def _parent(connection: Connection, ref: str) -> Version:
    match = _REF.fullmatch(ref)
    query = _of(match["name"]).where(versions.c.number == int(match["number"])) if match and match["number"] else None
    found = _one(connection, query) if query is not None else None
    if found is None:
        raise CauserieError("CAU-5002", f"no version {ref!r} is registered", where="parents", fix="register it first")
    return found


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a model.

    Raises:
        CauserieError: CAU-5002.
    """
    if _NAME.fullmatch(name) is None:
        fix = "use lower-case letters, digits, dots, dashes and underscores, at most 64"
        raise CauserieError("CAU-5002", f"{name!r} is not a model name", where="name", fix=fix)


def _check_new(name: str, status: str, artifact: Artifact) -> None:
    check_name(name)
    if status not in STATUSES:
        raise CauserieError("CAU-5002", f"no status {status!r}", where="status", fix=f"one of {', '.join(STATUSES)}")
    if artifact.manifest.kind not in ("model", "adapter"):
        cause = f"a {artifact.manifest.kind} is not a model"
        raise CauserieError("CAU-5002", cause, where=str(artifact.path), fix="register a model or adapter artifact")


def _relative(path: Path, workspace: Path) -> str:
    path, workspace = path.absolute(), workspace.absolute()
    return path.relative_to(workspace).as_posix() if path.is_relative_to(workspace) else str(path)


def _newest_number(name: str) -> Select[Any]:
    return select(func.max(versions.c.number)).where(versions.c.name == name)


def _of(name: str) -> Select[Any]:
    return select(versions).where(versions.c.name == name)


def _one(connection: Connection, query: Select[Any]) -> Version | None:
    row = connection.execute(query).first()
    return None if row is None else _version(row._asdict())


def _row(version: Version) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(version).items()}


def _version(row: Mapping[str, Any]) -> Version:
    return Version(**{**row, "parents": tuple(row["parents"]), "notices": tuple(row["notices"])})
