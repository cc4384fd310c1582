"""Models and versions as the page shows them, and changing which version answers."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from causerie.chat.runs import finite
from causerie.core import CauserieError, read_manifest
from causerie.hub import Lineage, Version, get_version, lineage, list_versions, promote
from causerie.loop import list_canaries
from causerie.serve import EnginePool, Served
from causerie.store import Store


def served_models(store: Store, pool: EnginePool, hidden: Container[str] = ()) -> list[dict[str, Any]]:
    """The models that can be chosen, those on trial left out: name to ask for, version, licence, notices and card."""
    return [_served(store, name, served) for name, served in pool.models() if name not in hidden]


def _served(store: Store, name: str, served: Served) -> dict[str, Any]:
    version = served.version
    shown = {"name": name, "version": version.label if version.version is not None else None}
    with contextlib.suppress(CauserieError):
        registered = get_version(store, version.label)
        return {**shown, "licence": registered.licence, "notices": registered.notices, "card": _card(registered.card)}
    notices: tuple[str, ...] = ()
    with contextlib.suppress(CauserieError):
        notices = read_manifest(served.folder).notices
    return {**shown, "licence": "", "notices": notices, "card": {}}


def version_tree(store: Store, workspace: Path, model: str) -> list[dict[str, Any]]:
    """All versions of a model, newest first, with what each was made from."""
    return [version_card(store, workspace, version) for version in reversed(list_versions(store, model))]


def version_card(store: Store, workspace: Path, version: Version) -> dict[str, Any]:
    """One version: parents, votes that its own training used (None when it used none), data, terms, card."""
    tree = lineage(store, workspace, version.ref)
    training = [node for node in tree.parents if node.kind == "preferences"]
    sources = {
        node.key: node for node in tree.walk() if node.key != version.key and node.kind not in ("model", "adapter")
    }
    return {
        "version": version.ref,
        "status": version.status,
        "promoted": version.status == "promoted",
        "answered": version.promoted is not None,
        "created": version.created,
        "kind": version.kind,
        "key": version.key,
        "parents": version.parents,
        "licence": version.licence,
        "notices": version.notices,
        "card": _card(version.card),
        "votes": _votes_used(version, training),
        "gate": finite(version.card.get("gate")),
        "verdict": version.card.get("verdict"),
        "canary": _trial(store, version),
        "data": [{"kind": node.kind, "name": _shown_name(node), "key": node.key} for node in sources.values()],
    }


def _shown_name(node: Lineage) -> str:
    """A file of which only the digest is known is told by what it was to the artifact that read it."""
    return node.role if node.kind == "input" and node.key.startswith(node.name) else node.name


def _votes_used(version: Version, training: Sequence[Lineage]) -> int | None:
    """Votes that its training read, as its round recorded them; for versions of other makings those of its data."""
    used = version.card.get("votes_used")
    if isinstance(used, dict):
        return int(used["trained_on"])
    return len({name for node in training for name in node.signal_ids()}) if training else None


def _trial(store: Store, version: Version) -> dict[str, Any] | None:
    """How the version's canary stands or ended; None when there was none."""
    canary = next((one for one in list_canaries(store, version.name) if one.candidate == version.ref), None)
    if canary is None:
        return None
    shown = {"status": canary.status, "why": canary.why, "share": canary.settings.share, "incumbent": canary.incumbent}
    shown |= {"most_votes": canary.settings.max_duels, "most_days": canary.settings.max_days}
    return {**shown, "started": canary.started, "ended": canary.ended, **canary.figures}


def _card(card: dict[str, Any]) -> dict[str, Any]:
    """The plain figures and sentences of a card; `summary` is the sentence shown first."""
    plain = {name: value for name, value in card.items() if isinstance(value, str | int | float | bool)}
    summary = plain.get("summary") or plain.get("description")
    return {**plain, **({"summary": summary} if summary else {})}


async def let_answer(store: Store, workspace: Path, pool: EnginePool, ref: str) -> dict[str, Any]:
    """Have a version answer from now on: its engine is started, then the registry says so.

    Raises:
        CauserieError: CAU-5001 when it is not registered, CAU-5003 when it was refused, CAU-31xx when its engine does
            not start (the version that answers stays).
    """
    version = get_version(store, ref)
    if version.status == "refused":
        raise CauserieError("CAU-5003", f"{ref} was refused", where="version", fix="choose another version")
    await pool.swap(version.name, version.path(workspace), version.number)
    promoted = promote(store, ref, actor="page", reason="chosen on the page")
    return {"version": promoted.ref, "model": promoted.name}
