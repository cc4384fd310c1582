"""Ground floor: artifacts and manifests, run folders, errors with codes, progress, seeds, crash points. No torch."""

from causerie.core.artifact import (
    Artifact,
    Draft,
    artifact_key,
    artifact_path,
    code_digest,
    content_key,
    existing_artifact,
    find_artifact,
    list_artifacts,
    open_artifact,
    place_for,
    write_artifact,
)
from causerie.core.crash import crashpoint
from causerie.core.errors import CauserieError, Finding, Stopped, need_package
from causerie.core.files import (
    cannot_write,
    numbered_jsonl,
    read_json,
    read_jsonl,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
    write_jsonl,
)
from causerie.core.lazy import lazy_names
from causerie.core.manifest import FileEntry, Manifest, read_manifest
from causerie.core.plain import plain
from causerie.core.progress import Tracker, say, stderr_console, track
from causerie.core.run import Run, open_run, read_events, read_run
from causerie.core.seeds import seed_for
from causerie.core.stop import graceful_stop
from causerie.core.streams import BROKEN_STREAM, open_stream
from causerie.core.workspace import data_pack, workspace_path

__all__ = [
    "BROKEN_STREAM",
    "Artifact",
    "CauserieError",
    "Draft",
    "FileEntry",
    "Finding",
    "Manifest",
    "Run",
    "Stopped",
    "Tracker",
    "artifact_key",
    "artifact_path",
    "cannot_write",
    "code_digest",
    "content_key",
    "crashpoint",
    "data_pack",
    "existing_artifact",
    "find_artifact",
    "graceful_stop",
    "lazy_names",
    "list_artifacts",
    "need_package",
    "numbered_jsonl",
    "open_artifact",
    "open_run",
    "open_stream",
    "place_for",
    "plain",
    "read_events",
    "read_json",
    "read_jsonl",
    "read_manifest",
    "read_run",
    "say",
    "seed_for",
    "sha256_file",
    "sha256_json",
    "stderr_console",
    "track",
    "workspace_path",
    "write_artifact",
    "write_atomic",
    "write_json",
    "write_jsonl",
]
