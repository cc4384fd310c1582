"""What training reads and leaves behind: keys of inputs, models and adapters as artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from causerie.core import (
    Draft,
    artifact_key,
    artifact_path,
    code_digest,
    content_key,
    place_for,
    read_manifest,
    write_artifact,
)
from causerie.model import Transformer, base_folder, lora_parameters, save_adapter, save_model
from causerie.train.config import TrainSettings

NOT_IN_KEY = frozenset(
    {"name", "out", "checkpoint_every", "keep_checkpoints", "resume", "allow_changed", "report_to", "replay_every"}
    | {"snapshots"}
)
"""Settings that do not change the result."""


def result_key(settings: TrainSettings, kind: str, inputs: Mapping[str, str], *modules: str) -> str:
    """Key of what a run with these settings and inputs makes; `modules` hold the code beside this room and `model`."""
    paths = {name for name, value in vars(settings).items() if isinstance(value, Path | tuple) and name != "prompts"}
    config = {name: value for name, value in settings.as_dict().items() if name not in NOT_IN_KEY | paths}
    return artifact_key(kind, config, inputs, code_digest("causerie.train", "causerie.model", *modules))


def output_folder(settings: TrainSettings, workspace: Path, kind: str, key: str) -> Path:
    """The artifact's final folder."""
    return settings.out or artifact_path(workspace, kind, settings.name, key)


@contextmanager
def open_output(
    settings: TrainSettings,
    workspace: Path,
    kind: str,
    key: str,
    inputs: Mapping[str, str],
    source: Path | None = None,
    **more: str,
) -> Iterator[Draft]:
    """The artifact being written; see `core.write_artifact`.

    Notices of `source` (its licence) pass on to it; `more` is recorded beside the settings, such as the command.
    """
    config, seeds = {**more, **settings.as_dict()}, {"seed": settings.seed}
    place, exact = place_for(settings.out, workspace)
    with write_artifact(
        place, kind, settings.name, key, inputs=inputs, config=config, seeds=seeds, exact=exact
    ) as draft:
        if source is not None and (source / "manifest.json").is_file():
            draft.notices.extend(read_manifest(source).notices)
        yield draft


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / "adapter_config.json").is_file()


def trained_kind(model: Transformer) -> Literal["model", "adapter"]:
    """What a trained model is saved as."""
    return "adapter" if lora_parameters(model) else "model"


def save_trained(model: Transformer, draft: Draft, final: Path, source: Path, workspace: Path) -> None:
    """Write a trained model, or the adapter alone, into a draft.

    Args:
        model: as it was trained.
        draft: of the artifact.
        final: the artifact's final folder; an adapter's base path is relative to it when both are in the workspace.
        source: the model or adapter folder training began with; its tokenizer files are copied.
        workspace: see `final`.
    """
    if not lora_parameters(model):
        save_model(model, draft.path, source)
        return
    base = base_folder(source) if is_adapter(source) else source.resolve()
    inside = all(p.resolve().is_relative_to(workspace.resolve()) for p in (base, final))
    written = os.path.relpath(base, final.resolve()) if inside else str(base)
    save_adapter(model, draft.path, written, tokenizer_from=source)


def base_key(source: Path) -> str:
    """Key of the base model behind a model or adapter folder."""
    return content_key(base_folder(source) if is_adapter(source) else source)


def describe(metrics: Mapping[str, Any]) -> str:
    """Figures as one line of text."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float))
