"""Manifests: what an artifact is, what made it and from what. The last file of every artifact's folder."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from causerie import __version__
from causerie.core.errors import CauserieError
from causerie.core.files import read_json, sha256_file

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: path relative to the folder, size in bytes, hex SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, what made it and from what; see `causerie.core.artifact`."""

    kind: str
    name: str
    key: str
    created: str
    inputs: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def present_versions() -> dict[str, str]:
    """Versions of this package, of Python, and of the packages that results depend on."""
    found = {"causerie": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def entries_of(folder: Path) -> tuple[FileEntry, ...]:
    """Every file of a folder but its own manifest, in the order of their paths."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return tuple(FileEntry(p.relative_to(folder).as_posix(), p.stat().st_size, sha256_file(p)) for p in paths)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact folder.

    Raises:
        CauserieError: CAU-1001 when there is none, CAU-1003 when it cannot be read.
    """
    if folder.is_file():
        fix = "give the folder of an artifact"
        raise CauserieError("CAU-1001", "a file, where an artifact's folder is needed", where=str(folder), fix=fix)
    value = read_json(folder / MANIFEST)
    try:
        files = tuple(FileEntry(**entry) for entry in value.pop("files", ()))
        manifest = Manifest(**{**value, "files": files, "notices": tuple(value.get("notices", ()))})
    except (TypeError, AttributeError) as error:
        raise _no_manifest(folder, str(error)) from error
    for record in (manifest, *files):
        for name, kind in _FIELDS[type(record)].items():
            if not isinstance(getattr(record, name), kind):
                raise _no_manifest(folder, f"{name} is {getattr(record, name)!r}")
    for entry in files:
        if Path(entry.path).is_absolute() or ".." in Path(entry.path).parts:
            raise _no_manifest(folder, f"{entry.path} leads out of the folder")
    return manifest


_FIELDS: Final[dict[type, dict[str, type]]] = {
    Manifest: dict.fromkeys(("kind", "name", "key", "created"), str)
    | dict.fromkeys(("inputs", "config", "metrics", "seeds", "versions"), dict),
    FileEntry: {"path": str, "bytes": int, "sha256": str},
}
"""What the fields of a manifest must be."""


def _no_manifest(folder: Path, cause: str) -> CauserieError:
    fix = "delete the folder and rebuild it"
    return CauserieError("CAU-1003", f"not a manifest: {cause}", where=str(folder / MANIFEST), fix=fix)
