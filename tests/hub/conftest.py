"""Fixtures of the hub's tests: a store, and small artifacts with real manifests and lineage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from causerie.core import Artifact, artifact_key, write_artifact
from causerie.store import Store, open_store


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    """An open store in a fresh workspace."""
    with open_store(workspace) as opened:
        yield opened


class Forge:
    """Makes artifacts of every kind with small real files."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace

    def make(self, kind: str, name: str, inputs: dict[str, str] | None = None, **more: Any) -> Artifact:
        config = more.pop("config", {})
        key = artifact_key(kind, {**config, "name": name}, inputs or {})
        place = more.pop("out", None)
        with write_artifact(
            place or self.workspace, kind, name, key, inputs=inputs, config=config, exact=place is not None
        ) as draft:
            if kind in ("model", "adapter"):
                write_weights(draft.path, kind, seed=len(name))
            else:
                (draft.path / "data.txt").write_text(name)
            draft.metrics.update(more.get("metrics", {}))
            draft.notices.extend(more.get("notices", ()))
        assert draft.artifact is not None
        return draft.artifact

    def chain(self, signals: tuple[str, ...] = ("sig_a", "sig_b")) -> dict[str, Artifact]:
        """A whole circle: corpus → tokenizer → shards → model → preferences → adapter."""
        corpus = self.make("corpus", "web", metrics={"documents_in": 100, "documents_kept": 40})
        tokenizer = self.make("tokenizer", "bpe", {"corpus": corpus.key}, metrics={"vocab_size": 512})
        shards = self.make("shards", "web", {"corpus": corpus.key, "tokenizer": tokenizer.key})
        model = self.make("model", "base", {"shards": shards.key, "tokenizer": tokenizer.key}, notices=["Base terms."])
        preferences = self.make(
            "preferences",
            "votes",
            {"rows": "f" * 64},
            config={"signals": list(signals)},
            metrics={"people": 2, "pairs": 1},
        )
        adapter = self.make("adapter", "tuned", {"base": model.key, "preferences": preferences.key})
        made = (corpus, tokenizer, shards, model, preferences, adapter)
        return {artifact.manifest.kind: artifact for artifact in made}


def write_weights(folder: Path, kind: str = "model", seed: int = 0) -> None:
    """Files of a Hugging Face model or adapter folder, with one small tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"w": np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32)}
    stem = "adapter_model" if kind == "adapter" else "model"
    config = "adapter_config.json" if kind == "adapter" else "config.json"
    save_file(weights, folder / f"{stem}.safetensors")
    (folder / config).write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"], "seed": seed}))


@pytest.fixture
def forge(workspace: Path) -> Forge:
    """A maker of artifacts in the workspace."""
    return Forge(workspace)
