"""The chat adapter that ships with the project, as an artifact beside its base."""

from __future__ import annotations

import os
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from causerie.core import (
    Artifact,
    CauserieError,
    artifact_key,
    artifact_path,
    existing_artifact,
    read_json,
    say,
    sha256_file,
    write_artifact,
    write_json,
)
from causerie.model import NOTICE_FILES, TOKENIZER_FILES, copy_companions
from causerie.starter.config import StarterConfig

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_FROM_BASE: Final = {*TOKENIZER_FILES, *NOTICE_FILES, CONFIG}


def add_starter_adapter(
    config: StarterConfig, workspace: Path, base: Artifact, shipped: Path | None = None
) -> Artifact | None:
    """The shipped adapter as an artifact `NAME-chat` on top of `base`; None when none ships.

    Args:
        config, workspace: as in `import_starter`.
        base: the imported model. The adapter changes no embedding, so it fits every vocabulary.
        shipped: the adapter's folder; None takes `assets/adapter` of this room.

    Raises:
        CauserieError: CAU-4403 when the shipped folder is incomplete.
    """
    if shipped is None:
        with as_file(files("causerie.starter").joinpath("assets", "adapter")) as folder:
            return _add(config, workspace, base, folder) if (folder / CONFIG).is_file() else None
    return _add(config, workspace, base, shipped)


def _add(config: StarterConfig, workspace: Path, base: Artifact, shipped: Path) -> Artifact:
    if not (shipped / WEIGHTS).is_file():
        fix = "reinstall the package"
        raise CauserieError("CAU-4403", f"the shipped adapter lacks {WEIGHTS}", where=str(shipped), fix=fix)
    name = f"{config.name}-chat"
    inputs = {"base": base.key, "adapter": sha256_file(shipped / WEIGHTS)}
    key = artifact_key("adapter", {"name": name}, inputs)
    final = artifact_path(workspace, "adapter", name, key)
    if config.out is not None:
        final = config.out.with_name(f"{config.out.name}-chat")
    found = existing_artifact(None if config.out is None else final, workspace, "adapter", name, key)
    if found is None:
        settings = {"vocabulary": config.vocabulary, "shipped": True}
        with write_artifact(final, "adapter", name, key, inputs=inputs, config=settings, exact=True) as draft:
            _write_folder(base.path, shipped, draft.path, os.path.relpath(base.path.resolve(), final.resolve()))
            draft.metrics |= _shipped_metrics(shipped)
            draft.notices += base.manifest.notices
        found = draft.artifact
        assert found is not None
    say(f"starter adapter: {found.path}")
    return found


def _write_folder(base: Path, shipped: Path, folder: Path, base_path: str) -> None:
    """The shipped files, the base's tokenizer and notices, and the way to the base."""
    for path in sorted(shipped.iterdir()):
        if path.is_file() and path.name not in _FROM_BASE:
            target = "training-manifest.json" if path.name == "manifest.json" else path.name
            shutil.copyfile(path, folder / target)
    copy_companions(base, folder)
    write_json(folder / CONFIG, {**read_json(shipped / CONFIG), "base_model_name_or_path": base_path})


def _shipped_metrics(shipped: Path) -> dict[str, Any]:
    """Metrics of the run that made the adapter, where its manifest ships."""
    manifest = shipped / "manifest.json"
    metrics = read_json(manifest).get("metrics", {}) if manifest.is_file() else {}
    return dict(metrics) if isinstance(metrics, dict) else {}
