"""`import_starter`: the pretrained Gemma 3 270M base as a model artifact of ours."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import torch

from causerie.core import (
    Artifact,
    artifact_key,
    cannot_write,
    existing_artifact,
    say,
    sha256_json,
    track,
    write_artifact,
)
from causerie.model import load_gguf, open_gguf, save_model
from causerie.starter.adapter import add_starter_adapter
from causerie.starter.config import StarterConfig
from causerie.starter.package import LICENCE, NOTICE, SHA256, TERMS_FILE, assemble_gguf, terms
from causerie.starter.vocabulary import kept_ids
from causerie.text import spm_to_tokenizer_json, spm_tokenizer

CONVERSION: Final = 1
"""Raised when the conversion changes what it makes; part of the artifact's key, so that keys outlive other edits."""
CHANGES: Final = (
    "Changes made to the original: weights dequantised from the Q4_K_M GGUF file and stored as bfloat16; a chat "
    "template and end-of-turn ids added{cut}."
)


def import_starter(config: StarterConfig, workspace: Path) -> Artifact:
    """The starter's pretrained base as a model artifact, made once; also the shipped adapter's, when one ships.

    Raises:
        CauserieError: CAU-4401 to CAU-4403, see `ERRORS`; CAU-1009 when something else stands at `config.out`.
    """
    settings: dict[str, Any] = {"vocabulary": config.vocabulary, "conversion": CONVERSION}
    if (kept := kept_ids(config.vocabulary)) is not None:
        settings["kept"] = sha256_json(kept)
    key = artifact_key("model", {"name": config.name, **settings}, {"gguf": SHA256})
    found = existing_artifact(config.out, workspace, "model", config.name, key)
    artifact = found or _convert(config, workspace, key, settings)
    say(f"starter model: {artifact.path}")
    say(f"licence: {LICENCE}")
    if config.adapter:
        add_starter_adapter(config, workspace, artifact)
    return artifact


def _convert(config: StarterConfig, workspace: Path, key: str, settings: dict[str, Any]) -> Artifact:
    place = config.out or workspace
    beside = workspace if config.out is None else config.out.absolute().parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(beside, error) from error
    with (
        tempfile.TemporaryDirectory(prefix=".starter-", dir=beside) as scratch,
        write_artifact(
            place, "model", config.name, key, inputs={"gguf": SHA256}, config=settings, exact=config.out is not None
        ) as draft,
    ):
        path = assemble_gguf(Path(scratch))
        metrics = _write_folder(path, config, draft.path)
        draft.metrics |= metrics
        draft.notices += [NOTICE, notice_of_changes(config.vocabulary)]
    assert draft.artifact is not None
    return draft.artifact


def _write_folder(gguf_path: Path, config: StarterConfig, folder: Path) -> dict[str, Any]:
    """Tokenizer, weights, configuration, notices; returns the manifest's metrics."""
    gguf = open_gguf(gguf_path)
    tokens, scores, types = (gguf.metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    keep = kept_ids(config.vocabulary)
    definition, old = spm_to_tokenizer_json(tokens, scores, types, keep)
    spm_tokenizer(definition).save(folder)
    with track("reading the starter's weights", len(gguf.tensors), "tensors") as bar:
        rows = None if keep is None else old
        model = load_gguf(gguf_path, dtype=torch.bfloat16, keep=rows, on_tensor=lambda _: bar.advance())
    save_model(model, folder, folder)
    (folder / TERMS_FILE).write_bytes(terms())
    (folder / "NOTICE.txt").write_text(f"{NOTICE}\n\n{notice_of_changes(config.vocabulary)}\n", encoding="utf-8")
    shape = model.shape
    return {
        "parameters": shape.n_params,
        "parameters_without_embedding": shape.n_params_without_embedding,
        "vocabulary": shape.vocab_size,
        "licence": LICENCE,
    }


def notice_of_changes(vocabulary: str) -> str:
    """What was done to the original, as the terms ask to be stated."""
    return CHANGES.format(cut="" if vocabulary == "full" else f"; vocabulary cut to {vocabulary}")
