"""Lineage: from a model, or from one answer, back to everything that it was made from, votes included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from causerie.core import Artifact, CauserieError
from causerie.hub.artifacts import ArtifactIndex
from causerie.hub.registry import Version, get_version, list_versions
from causerie.hub.resolve import resolve
from causerie.store import Store, exposures


@dataclass(frozen=True)
class Lineage:
    """One node of the tree: an artifact, or an input of which only the digest is known (kind "input").

    `role` is what it was to the node above ("base", "shards", "preferences", …; "" for the root). `detail` holds
    a preferences artifact's signal ids, a corpus's document counts and so on. `parents` are what it was made from;
    a node that stands in the tree already has `repeated` set and its parents left out.
    """

    kind: str
    name: str
    key: str
    role: str = ""
    path: str = ""
    created: str = ""
    refs: tuple[str, ...] = ()
    licence: str = ""
    notices: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
    parents: tuple[Lineage, ...] = ()
    repeated: bool = False

    def walk(self) -> Iterator[Lineage]:
        """This node and all above it, depth first."""
        yield self
        for parent in self.parents:
            yield from parent.walk()

    def signal_ids(self) -> tuple[str, ...]:
        """Ids of every vote that any training set in the tree used, sorted."""
        return tuple(sorted({name for node in self.walk() for name in node.detail.get("signals", ())}))

    def as_dict(self) -> dict[str, Any]:
        """The tree as plain JSON values."""
        return {**vars(self), "parents": [parent.as_dict() for parent in self.parents]}


@dataclass(frozen=True)
class AnswerTrace:
    """Where an answer came from: the exposure's id, its model reference, sampling, and the lineage of its weights."""

    exposure_id: str
    model: str
    version_key: str
    sampling: dict[str, Any]
    created: float
    lineage: Lineage | None


_SHOWN_METRICS = {
    "corpus": ("documents_in", "documents_kept", "bytes_kept"),
    "tokenizer": ("vocab_size",),
    "shards": ("train_tokens", "val_tokens", "train_documents"),
    "preferences": ("pairs", "unpaired", "sft", "heldout_pairs", "people", "left_out"),
}


def lineage(store: Store | None, workspace: Path, ref: str) -> Lineage:
    """The tree of everything that a model was made from: weights, data, votes.

    Args:
        store: the store, for versions and their parents; None to go by manifests only.
        workspace: the workspace whose artifacts are searched.
        ref: a registry name, `name@number`, or a folder.

    Raises:
        CauserieError: CAU-5001 or CAU-5004 when `ref` is no model.
    """
    builder = _Builder(store, workspace)
    if store is not None:
        try:
            version = get_version(store, ref)
            return builder.node(version.key, "", builder.index.add(version.path(workspace)), version)
        except CauserieError as error:
            if error.code != "CAU-5001":
                raise
    found = resolve(store, workspace, ref)
    return builder.node(found.key, "", builder.index.add(found.path), found.version, name=found.name)


def trace_answer(store: Store, workspace: Path, exposure_id: str) -> AnswerTrace:
    """Trace a recorded answer to the weights that gave it, their parents and the votes that made them.

    `lineage` is None when the weights are neither registered nor in the workspace.

    Raises:
        CauserieError: CAU-5006 when no such answer was recorded.
    """
    row = store.first(select(exposures).where(exposures.c.id == exposure_id))
    if row is None:
        raise CauserieError("CAU-5006", f"no answer {exposure_id!r}", where="exposure id", fix="check the id")
    builder = _Builder(store, workspace)
    known = row.version_key in builder.versions or builder.index.find(row.version_key) is not None
    tree = builder.node(row.version_key, "") if known else None
    model = row.model if row.version is None else f"{row.model}@{row.version}"
    return AnswerTrace(row.id, model, row.version_key, dict(row.sampling), row.created, tree)


def render_lineage(root: Lineage) -> str:
    """The tree as indented text, one node a line."""
    return "\n".join(_lines(root, 0)) + "\n"


class _Builder:
    """Builds nodes from the manifests of a workspace and the versions of a store."""

    def __init__(self, store: Store | None, workspace: Path) -> None:
        self.index = ArtifactIndex(workspace)
        self.versions: dict[str, list[Version]] = {}
        self._by_ref: dict[str, Version] = {}
        self._seen: set[str] = set()
        for version in list_versions(store) if store else ():
            self.versions.setdefault(version.key, []).append(version)
            self._by_ref[version.ref] = version
            folder = version.path(workspace)
            if (folder / "manifest.json").is_file():
                self.index.add(folder)

    def node(
        self, key: str, role: str, artifact: Artifact | None = None, version: Version | None = None, name: str = ""
    ) -> Lineage:
        """The node of an artifact key, with everything above it."""
        artifact = artifact or self.index.find(key)
        own = [version] if version else self.versions.get(key, [])
        refs = tuple(item.ref for item in self.versions.get(key, own))
        licence = own[0].licence if own else ""
        if artifact is None:
            kind, name = (own[0].kind, own[0].name) if own else ("input", name or key[:8])
            return Lineage(kind, name, key, role, refs=refs, licence=licence, parents=self._elders(own, set()))
        manifest = artifact.manifest
        repeated, self._seen = key in self._seen, self._seen | {key}
        return Lineage(
            kind=manifest.kind,
            name=manifest.name,
            key=key,
            role=role,
            path=str(artifact.path),
            created=manifest.created,
            refs=refs,
            licence=licence,
            notices=own[0].notices if own else manifest.notices,
            detail=_detail(artifact),
            parents=() if repeated else self._parents(artifact, own),
            repeated=repeated,
        )

    def _parents(self, artifact: Artifact, own: list[Version]) -> tuple[Lineage, ...]:
        inputs = artifact.manifest.inputs
        found = [self.node(key, role, self.index.find(key, artifact.manifest)) for role, key in sorted(inputs.items())]
        return (*found, *self._elders(own, set(inputs.values())))

    def _elders(self, own: list[Version], there: set[str]) -> tuple[Lineage, ...]:
        """Parents that were declared at registration and are not among the manifest's inputs."""
        refs = dict.fromkeys(ref for version in own for ref in version.parents)
        elders = [self._by_ref[ref] for ref in refs if ref in self._by_ref]
        return tuple(self.node(elder.key, "parent", version=elder) for elder in elders if elder.key not in there)


def _detail(artifact: Artifact) -> dict[str, Any]:
    """What is worth showing of a manifest: the counts of its kind, small metrics, a training set's signals."""
    manifest = artifact.manifest
    wanted = _SHOWN_METRICS.get(manifest.kind)
    small = {name: value for name, value in manifest.metrics.items() if isinstance(value, int | float | str | bool)}
    detail: dict[str, Any] = (
        {name: manifest.metrics[name] for name in wanted if name in manifest.metrics} if wanted else small
    )
    if manifest.kind == "preferences":
        detail["signals"] = list(manifest.config.get("signals", ()))
    return detail


def _lines(node: Lineage, depth: int) -> Iterator[str]:
    head = f"{node.role}: " if node.role else ""
    refs = f" ({', '.join(node.refs)})" if node.refs else ""
    shown = {name: len(value) if isinstance(value, list) else value for name, value in node.detail.items()}
    figures = ", ".join(f"{name} {value}" for name, value in shown.items() if not isinstance(value, dict))
    tail = "  as above" if node.repeated else f"  {figures}" if figures else ""
    yield f"{'  ' * depth}{head}{node.kind} {node.name} {node.key[:8]}{refs}{tail}"
    for parent in node.parents:
        yield from _lines(parent, depth + 1)
