"""Finding artifacts by key: those of the workspace, and those elsewhere that a configuration points to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from causerie.core import Artifact, CauserieError, Manifest, read_manifest


class ArtifactIndex:
    """Manifests by artifact key. Damaged and unfinished artifacts are found too: lineage needs only the manifest."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._by_key: dict[str, Artifact] = {}
        for path in sorted(workspace.glob("*/*/manifest.json")):
            if not path.parent.name.startswith("."):
                self.add(path.parent)

    def add(self, folder: Path) -> Artifact | None:
        """Take a folder into the index; None when it has no readable manifest."""
        try:
            artifact = Artifact(folder, read_manifest(folder))
        except (CauserieError, OSError):
            return None
        self._by_key.setdefault(artifact.key, artifact)
        return artifact

    def find(self, key: str, child: Manifest | None = None) -> Artifact | None:
        """The artifact with this key; folders named in the configuration of the `child` made from it are tried too."""
        if key not in self._by_key and child is not None:
            for folder in _folders(child.config):
                if (folder / "manifest.json").is_file():
                    self.add(folder)
        return self._by_key.get(key)

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self._by_key.values())


def _folders(value: Any) -> Iterator[Path]:
    if isinstance(value, str) and 0 < len(value) < 4096 and "\n" not in value and "\0" not in value:
        yield Path(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _folders(item)
    elif isinstance(value, list) and len(value) <= 64:
        for item in value:
            yield from _folders(item)
