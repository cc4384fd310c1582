"""What a user means by MODEL: a registry name, a version, an artifact folder or a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from causerie.core import CauserieError, open_artifact, read_manifest, sha256_file, sha256_json
from causerie.hub.registry import Version, get_version, version_by_key
from causerie.hub.suggest import unknown_model
from causerie.store import Store

KEYED: Final = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Endings of the files that make a model what it is."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model that can be loaded: its folder, the key of its weights, and its version when it is registered.

    `kind` is "model" or "adapter"; `name` is `name@number` for a version and the folder's name otherwise.
    """

    path: Path
    key: str
    kind: str
    name: str
    version: Version | None = None


def resolve(store: Store | None, workspace: Path, ref: str) -> ResolvedModel:
    """Find the model that `ref` names.

    `name` is the promoted version of a registry name, `name@3` that version; anything that is a folder is that
    folder. A text with a slash or a leading dot is always a path; otherwise the registry is asked first.

    Args:
        store: the store, or None to look at folders only.
        workspace: the workspace.
        ref: what the user wrote.

    Raises:
        CauserieError: CAU-5001 when nothing has this name (with what is near), CAU-5004 when the folder is no model,
            CAU-1002 when an artifact is damaged.
    """
    if not ref:
        raise unknown_model(store, ref, workspace)
    folder = Path(ref).expanduser()
    is_path = "/" in ref or ref.startswith((".", "~"))
    if store is not None and not is_path:
        try:
            return _registered(workspace, get_version(store, ref))
        except CauserieError as error:
            if error.code != "CAU-5001" or not folder.is_dir():
                raise
    if folder.is_dir():
        return _folder(store, folder)
    raise unknown_model(store, ref, workspace)


def _registered(workspace: Path, version: Version) -> ResolvedModel:
    artifact = open_artifact(version.path(workspace))
    if artifact.key != version.key:
        cause = f"{version.ref} was registered with another artifact (key {version.key[:8]}, found {artifact.key[:8]})"
        raise CauserieError("CAU-5004", cause, where=str(artifact.path), fix="run `causerie models verify`")
    return ResolvedModel(artifact.path, version.key, version.kind, version.ref, version)


def _folder(store: Store | None, folder: Path) -> ResolvedModel:
    if (folder / "manifest.json").is_file():
        folder_kind(folder)
        artifact = open_artifact(folder)
        version = version_by_key(store, artifact.key) if store else None
        name = version.ref if version else artifact.path.name
        return ResolvedModel(folder, artifact.key, artifact.manifest.kind, name, version)
    return ResolvedModel(folder, weights_key(folder), folder_kind(folder), folder.resolve().name)


def folder_kind(folder: Path) -> str:
    """ "model" or "adapter", by the manifest or the files of a Hugging Face folder.

    Raises:
        CauserieError: CAU-5004 when it is neither.
    """
    if (folder / "manifest.json").is_file():
        kind = read_manifest(folder).kind
        if kind not in ("model", "adapter"):
            cause = f"the folder holds a {kind}, not a model"
            raise CauserieError("CAU-5004", cause, where=str(folder), fix="give a model or adapter folder")
        return kind
    if (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file():
        return "adapter"
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return "model"
    raise CauserieError(
        "CAU-5004",
        "the folder holds no config.json with .safetensors files, nor an adapter",
        where=str(folder),
        fix="give a Hugging Face folder with safetensors weights; pickled weights are not read",
    )


def weights_key(folder: Path) -> str:
    """Key of a folder without manifest: digest of configuration, tokenizer, template and weights (64 hex digits)."""
    files = sorted(path for ending in KEYED for path in folder.glob(f"*{ending}"))
    return sha256_json({path.name: sha256_file(path) for path in files})
