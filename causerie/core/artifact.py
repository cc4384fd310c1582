"""Artifacts: immutable folders with a manifest, whole or absent.

An artifact lives in `<workspace>/<kind>/<name>-<key8>/`. It is written beside its final place, flushed,
and renamed; the manifest is its last file. Its key is the digest of the configuration, the inputs' keys and
the code that made it, so a stage whose key exists need not run again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from causerie.core.crash import crashpoint
from causerie.core.errors import CauserieError
from causerie.core.files import cannot_write, fsync_folder, fsync_tree, sha256_file, sha256_json, write_json
from causerie.core.manifest import MANIFEST, Manifest, entries_of, present_versions, read_manifest
from causerie.core.workspace import folder_name


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def key(self) -> str:
        """The artifact's full key (64 hex digits)."""
        return self.manifest.key

    def file(self, name: str) -> Path:
        """Path of one of its files.

        Raises:
            CauserieError: CAU-1002 when the artifact holds no such file.
        """
        path = self.path / name
        if not path.exists():
            raise CauserieError("CAU-1002", f"the artifact holds no file {name!r}", where=str(self.path), fix="rebuild")
        return path


@dataclass
class Draft:
    """An artifact being written: put files under `path`, fill `metrics` and `notices`."""

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    artifact: Artifact | None = None


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of the source files of packages or modules, e.g. `code_digest("causerie.data")`: 16 hex digits."""
    digest = hashlib.sha256()
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"no module named {name}")
        origin = Path(spec.origin)
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def artifact_key(kind: str, config: Mapping[str, Any], inputs: Mapping[str, str], code: str = "") -> str:
    """Key of an artifact before it is made: 64 hex digits.

    Args:
        kind: such as "corpus", "tokenizer", "shards", "model", "adapter", "preferences".
        config: everything that changes the result; plain JSON values.
        inputs: role → key (or content digest) of every input.
        code: `code_digest(...)` of the room that makes it.
    """
    return sha256_json({"kind": kind, "config": dict(config), "inputs": dict(inputs), "code": code})


@contextmanager
def write_artifact(
    place: Path,
    kind: str,
    name: str,
    key: str,
    *,
    inputs: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    seeds: Mapping[str, int] | None = None,
    exact: bool = False,
) -> Iterator[Draft]:
    """Write an artifact: yields a draft whose folder appears at its final place only when the block ends well.

    Args:
        place: the workspace; or the artifact's own final folder when `exact` (a command's `--out DIR`).
        kind, name, key: see `artifact_key`.
        inputs, config, seeds: recorded in the manifest.
        exact: write to `place` itself instead of `<place>/<kind>/<name>-<key8>`.

    Raises:
        CauserieError: CAU-1007 when the disk is full or the folder cannot be written; CAU-1009 when something that
            is no such artifact stands at `place`, or what this one is made from.
    """
    final = place if exact else artifact_path(place, kind, name, key)
    if exact:
        _check_replaceable(final, kind, (inputs or {}).values())
    beside, holder = final, None
    try:
        beside, holder = _new_draft(final)
        _sweep(final)
        draft = Draft(beside)
        yield draft
        recorded = {"inputs": dict(inputs or {}), "config": dict(config or {}), "seeds": dict(seeds or {})}
        manifest = _manifest_of(draft, kind, name, key, recorded)
        crashpoint("artifact.before_manifest")
        write_json(beside / MANIFEST, asdict(manifest))
        fsync_tree(beside)
        crashpoint("artifact.before_rename")
        _move_into_place(beside, final)
        crashpoint("artifact.after_rename")
        draft.artifact = Artifact(final, manifest)
    except OSError as error:
        _delete(beside, final)
        if _is_elsewhere(error, final.parent):
            raise
        raise cannot_write(final, error) from error
    except BaseException:
        _delete(beside, final)
        raise
    finally:
        if holder is not None:
            os.close(holder)


def _manifest_of(draft: Draft, kind: str, name: str, key: str, recorded: dict[str, Any]) -> Manifest:
    """The manifest of what was written into a draft."""
    return Manifest(
        kind=kind,
        name=name,
        key=key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=entries_of(draft.path),
        metrics=draft.metrics,
        versions=present_versions(),
        notices=tuple(draft.notices),
        **recorded,
    )


def _delete(beside: Path, final: Path) -> None:
    if beside != final:
        shutil.rmtree(beside, ignore_errors=True)


def _new_draft(final: Path) -> tuple[Path, int | None]:
    """An empty folder beside an artifact's final place, and the lock on it, where the file system has locks.

    Another process that sweeps may take a folder away before it is locked: then one more is made.
    """
    for _ in range(3):
        beside = final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}.part"
        beside.mkdir(parents=True)
        holder = _held(beside)
        if holder is not None and beside.is_dir():
            return beside, holder
        if holder is not None:
            os.close(holder)
    beside.mkdir(parents=True, exist_ok=True)
    return beside, None


def _held(draft: Path) -> int | None:
    """A lock on a draft's folder that ends with this process; None where there are no locks or another has it."""
    try:
        opened = os.open(draft, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def _sweep(final: Path) -> None:
    """Delete what killed processes left of this artifact: drafts that nobody holds."""
    for draft in final.parent.glob(f".{glob.escape(final.name)}.*.part"):
        if (holder := _held(draft)) is not None:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(holder)


def _is_elsewhere(error: OSError, folder: Path) -> bool:
    """Whether an error names a file that is not in `folder`: then it is about something read, not about our writing.

    A copy that finds the disk full names the file it reads from.
    """
    name = error.filename
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return False
    return isinstance(name, str) and not Path(name).absolute().is_relative_to(folder.absolute())


def _check_replaceable(final: Path, kind: str, inputs: Iterable[str] = ()) -> None:
    """Refuse to put an artifact in the place of anything but nothing, an empty folder or an artifact of its kind.

    One that the new artifact is made from (its key is among `inputs`) stays, too.
    """
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    key = ""
    try:
        held = "file"
        if final.is_dir():
            manifest = read_manifest(final)
            held, key = manifest.kind, manifest.key
    except CauserieError:
        held = "folder of other things"
    if held != kind:
        cause = f"a {held} stands where the {kind} should be written"
        fix = "choose a new folder for --out, or delete this one"
        raise CauserieError("CAU-1009", cause, where=str(final), fix=fix)
    if key in inputs:
        cause = f"the new {kind} would take the place of the {kind} that it is made from"
        raise CauserieError("CAU-1009", cause, where=str(final), fix="choose a new folder for --out")


def _move_into_place(beside: Path, final: Path) -> None:
    """Rename a draft to its final name; what stands there, put there by another process just now perhaps, makes way."""
    retired: list[Path] = []
    moved = False
    while not moved:
        if final.exists():
            retired.append(final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}.old")
            with contextlib.suppress(FileNotFoundError):
                os.rename(final, retired[-1])
        try:
            os.rename(beside, final)
            moved = True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    for folder in retired:
        shutil.rmtree(folder, ignore_errors=True)
    fsync_folder(final.parent)


def artifact_path(workspace: Path, kind: str, name: str, key: str) -> Path:
    """Where an artifact lives: `<workspace>/<kind>/<name>-<key8>`.

    Raises:
        CauserieError: CAU-1011 when the name cannot be that of a folder.
    """
    return workspace / kind / f"{folder_name(name)}-{key[:8]}"


def open_artifact(folder: Path, verify: Literal["size", "digest"] = "size", *, kind: str = "") -> Artifact:
    """Open a finished artifact, checking each file's presence and size (and digest on demand).

    Args:
        folder: the artifact's folder.
        verify: what is compared with the manifest.
        kind: what it must be; "" for anything.

    Raises:
        CauserieError: CAU-1001 when there is none, CAU-1010 when it is of another kind, CAU-1002 naming the first file
            that is missing or differs.
    """
    manifest = read_manifest(folder)
    if kind and manifest.kind != kind:
        cause = f"the folder holds {manifest.kind}, {kind} is needed"
        raise CauserieError("CAU-1010", cause, where=str(folder), fix=f"give a folder of kind {kind}")
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            raise _damaged(path, "the file is missing")
        if path.stat().st_size != entry.bytes:
            raise _damaged(path, f"{path.stat().st_size} bytes where the manifest says {entry.bytes}")
        if verify == "digest" and sha256_file(path) != entry.sha256:
            raise _damaged(path, "the content's digest differs from the manifest's")
    return Artifact(folder, manifest)


def _damaged(path: Path, cause: str) -> CauserieError:
    return CauserieError("CAU-1002", cause, where=str(path), fix="delete the artifact's folder and run the stage again")


def find_artifact(workspace: Path, kind: str, name: str, key: str) -> Artifact | None:
    """The artifact with this key if it is there and valid, else None (a damaged one counts as absent)."""
    folder = artifact_path(workspace, kind, name, key)
    if not folder.is_dir():
        return None
    try:
        artifact = open_artifact(folder)
    except CauserieError:
        return None
    return artifact if artifact.key == key else None


def existing_artifact(
    out: Path | None, workspace: Path, kind: str, name: str, key: str, inputs: Mapping[str, str] | None = None
) -> Artifact | None:
    """The finished artifact with this key, at `out` when that is given, else in the workspace; None: it must be made.

    Raises:
        CauserieError: CAU-1009 when something that is no such artifact, or one of the `inputs` (role → key), stands at
            `out`: found before the work is done. CAU-1011 for a name that cannot be a folder's.
    """
    folder_name(name)
    if out is None:
        return find_artifact(workspace, kind, name, key)
    _check_replaceable(out, kind, (inputs or {}).values())
    try:
        artifact = open_artifact(out)
    except CauserieError:
        return None
    return artifact if artifact.key == key else None


def place_for(out: Path | None, workspace: Path) -> tuple[Path, bool]:
    """`place` and `exact` of `write_artifact` for a command's `--out`, which may not be given."""
    return (workspace, False) if out is None else (out, True)


def content_key(path: Path) -> str:
    """Key of an artifact folder; of any other folder or file, a digest of everything in it (64 hex digits).

    Raises:
        CauserieError: CAU-1001 when there is nothing.
    """
    if (path / MANIFEST).is_file():
        return read_manifest(path).key
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise CauserieError("CAU-1001", "no such file or folder", where=str(path), fix="check the path")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256_json({file.relative_to(path).as_posix(): sha256_file(file) for file in files})


def list_artifacts(workspace: Path, kind: str) -> list[Artifact]:
    """Valid artifacts of a kind, newest first; damaged or unfinished folders are left out."""
    found = []
    for folder in sorted((workspace / kind).glob("*")) if (workspace / kind).is_dir() else []:
        if folder.name.startswith(".") or not (folder / MANIFEST).exists():
            continue
        try:
            found.append(open_artifact(folder))
        except CauserieError:
            continue
    return sorted(found, key=lambda artifact: artifact.manifest.created, reverse=True)
