"""Models in and out: a Hugging Face folder becomes a registered artifact, a version becomes a plain folder."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from causerie.core import (
    CauserieError,
    artifact_key,
    cannot_write,
    find_artifact,
    open_artifact,
    write_artifact,
    write_atomic,
)
from causerie.hub.audit import record_audit
from causerie.hub.card import model_card
from causerie.hub.registry import Status, Version, check_name, get_version, register
from causerie.hub.resolve import KEYED, folder_kind, resolve, weights_key
from causerie.hub.rights import rights_of
from causerie.hub.terms import combine_licences
from causerie.store import Store

SUFFIXES: Final = (*KEYED, ".md")
"""Files that an import copies: configuration, weights, tokenizer, texts. Anything that could hold code stays out."""


def import_model(
    store: Store,
    workspace: Path,
    folder: Path,
    name: str,
    *,
    licence: str = "",
    notices: Sequence[str] = (),
    status: Status = "candidate",
    actor: str = "causerie",
) -> Version:
    """Copy a Hugging Face folder into the workspace as an artifact and register it.

    A folder that is an artifact already is registered where it lies.

    Raises:
        CauserieError: CAU-5002 for the name, CAU-5004 when the folder holds no safetensors model, CAU-1007 when it
            cannot be copied, CAU-5003 when it is registered already under another licence.
    """
    check_name(name)
    if (folder / "manifest.json").is_file():
        artifact = open_artifact(folder, verify="digest")
    else:
        kind, inputs = folder_kind(folder), {"weights": weights_key(folder)}
        key = artifact_key(kind, {"import": "folder"}, inputs)
        there = find_artifact(workspace, kind, name, key)
        if there is None:
            with write_artifact(workspace, kind, name, key, inputs=inputs, config={"from": folder.name}) as draft:
                for path in sorted(folder.iterdir()):
                    if path.is_file() and path.suffix in SUFFIXES:
                        shutil.copyfile(path, draft.path / path.name)
                draft.notices.extend(notices)
            there = draft.artifact
        assert there is not None
        artifact = there
    version = register(store, workspace, name, artifact, licence=licence, notices=notices, status=status, actor=actor)
    if licence and combine_licences([version.licence, licence]) != version.licence:
        cause = f"{version.ref} is registered already, under {version.licence}"
        raise CauserieError("CAU-5003", cause, where="licence", fix="leave the licence out, or give another name")
    return version


def export_model(store: Store, workspace: Path, ref: str, out: Path, *, actor: str = "causerie") -> Path:
    """Copy a version to a folder of its own, with its card as README.md and its terms as NOTICE; audited first.

    Every file's digest is checked on the way. An adapter is exported as an adapter.

    Raises:
        CauserieError: CAU-5001 when it is not registered, CAU-5004 when `out` exists, CAU-1002 when it is damaged,
            CAU-1007 when it cannot be written; then nothing is left there.
    """
    version = get_version(store, ref)
    found = resolve(store, workspace, version.ref)
    artifact = open_artifact(found.path, verify="digest")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise CauserieError("CAU-5004", "the folder is not empty", where=str(out), fix="choose a new folder for --out")
    detail = {"key": version.key, "bytes": sum(entry.bytes for entry in artifact.manifest.files)}
    record_audit(store, actor, "export", version.ref, detail)
    beside = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        for entry in artifact.manifest.files:
            target = beside / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path / entry.path, target)
        write_atomic(beside / "README.md", model_card(store, workspace, version.ref))
        write_atomic(beside / "NOTICE", rights_of(version).text())
        beside.replace(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out
