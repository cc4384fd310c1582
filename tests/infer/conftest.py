"""A tiny random model whose attention matters, in memory and as a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from causerie.core import write_json
from causerie.model import Transformer, save_model

from .tiny import GEMMA, QWEN, random_model


@pytest.fixture(scope="session", params=["qwen3", "gemma3"])
def model(request: pytest.FixtureRequest) -> Transformer:
    """Both kinds of attention: full with grouped heads, and sliding windows."""
    return random_model(QWEN if request.param == "qwen3" else GEMMA)


@pytest.fixture(scope="session")
def qwen() -> Transformer:
    """The Qwen3-shaped model."""
    return random_model(QWEN)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Qwen3-shaped model as a folder; with room for requests that no test waits for the end of."""
    path = tmp_path_factory.mktemp("model")
    save_model(random_model(replace(QWEN, max_seq_len=50_000)), path, None)
    write_json(path / "generation_config.json", {"eos_token_id": [3, 5]})
    return path
