"""How licences and notices pass from parents to derivatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from causerie.core import Artifact
from causerie.hub.artifacts import ArtifactIndex

UNKNOWN: Final = "unknown"
"""The licence of something whose licence nobody stated."""


def combine_licences(licences: Iterable[str]) -> str:
    """The licences of a model and its parents as one expression: all of them hold (SPDX `AND`)."""
    found: list[str] = []
    for licence in licences:
        for part in licence.split(" AND "):
            if part.strip() and part.strip() not in found:
                found.append(part.strip())
    named = [licence for licence in found if licence != UNKNOWN]
    return " AND ".join(named) if named else UNKNOWN


def combine_notices(*groups: Sequence[str]) -> tuple[str, ...]:
    """Notices of several origins, each once, in order."""
    return tuple(dict.fromkeys(notice for group in groups for notice in group if notice.strip()))


def inherited_notices(workspace: Path, artifact: Artifact) -> tuple[str, ...]:
    """Notices of everything that an artifact was made from, as far as the workspace holds its manifests."""
    index = ArtifactIndex(workspace)
    found: list[str] = []
    seen: set[str] = set()
    open_ends = [artifact.manifest]
    while open_ends:
        manifest = open_ends.pop()
        for key in manifest.inputs.values():
            place = index.find(key, manifest)
            if place is not None and key not in seen:
                seen.add(key)
                found.extend(place.manifest.notices)
                open_ends.append(place.manifest)
    return combine_notices(found)
