"""Verifying a version: every byte against its manifest, the manifest against the audit log, the log against itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causerie.core import CauserieError, read_manifest, sha256_file
from causerie.hub.audit import list_audit, verify_audit
from causerie.hub.lineage import lineage
from causerie.hub.registry import Version, get_version
from causerie.store import Store


@dataclass(frozen=True)
class Verification:
    """What was checked and what is wrong (nothing when the version is sound)."""

    ref: str
    files: int
    bytes: int
    audit_rows: int
    audit_head: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_version(store: Store, workspace: Path, ref: str) -> Verification:
    """Check a registered version: files against the manifest, the manifest against its registration, the audit chain.

    For an adapter the base model's files are checked too.

    Raises:
        CauserieError: CAU-5001 when it is not registered.
    """
    version = get_version(store, ref)
    folder = version.path(workspace)
    files, size, problems = check_folder(folder)
    problems += _against_registration(store, version, folder)
    for node in lineage(store, workspace, version.ref).parents if version.kind == "adapter" else ():
        if node.role == "base" and node.path:
            more_files, more_bytes, more = check_folder(Path(node.path))
            files, size, problems = files + more_files, size + more_bytes, problems + [f"base: {text}" for text in more]
        elif node.role == "base":
            problems.append(f"the base model (key {node.key[:8]}) is not in the workspace")
    chain = verify_audit(store)
    problems += [f"audit log: {text}" for text in chain.problems]
    return Verification(version.ref, files, size, chain.rows, chain.head, tuple(problems))


def check_folder(folder: Path) -> tuple[int, int, list[str]]:
    """Files checked, their bytes, and what differs from the manifest: missing, changed or additional files."""
    try:
        manifest = read_manifest(folder)
    except CauserieError as error:
        return 0, 0, [f"{folder.name}: {error.cause}"]
    problems, size = [], 0
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            problems.append(f"{entry.path} is missing")
            continue
        size += path.stat().st_size
        if sha256_file(path) != entry.sha256:
            problems.append(f"{entry.path} was changed: its digest differs from the manifest's")
    listed = {entry.path for entry in manifest.files} | {"manifest.json"}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    problems += [f"{name} is not in the manifest" for name in sorted(present - listed)]
    return len(manifest.files), size, problems


def _against_registration(store: Store, version: Version, folder: Path) -> list[str]:
    entry = next((row for row in list_audit(store, version.ref) if row.action == "register"), None)
    if entry is None:
        return ["its registration is not in the audit log"]
    problems = []
    if entry.detail.get("key") != version.key:
        problems.append("the registry's key differs from the one in the audit log")
    manifest = folder / "manifest.json"
    if manifest.is_file() and sha256_file(manifest) != entry.detail.get("manifest"):
        problems.append("the manifest was changed since registration")
    return problems
