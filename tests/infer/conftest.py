"""A tiny random model whose attention matters, in memory and as a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from causerie.core import write_json
from causerie.model import ModelShape, Transformer, init_model, save_model

VOCAB = 97
QWEN = ModelShape(
    family="qwen3", n_layer=2, n_embd=32, n_head=4, n_kv_head=2, head_dim=8, ffn_dim=48, vocab_size=VOCAB, max_seq_len=256
)
GEMMA = ModelShape(
    family="gemma3",
    n_layer=3,
    n_embd=32,
    n_head=4,
    n_kv_head=1,
    head_dim=8,
    ffn_dim=48,
    vocab_size=VOCAB,
    max_seq_len=256,
    sliding_window=11,
    local_layers=(True, True, False),
    rope_local_theta=1000.0,
    query_scale=0.3,
)


def random_model(shape: ModelShape, seed: int = 0) -> Transformer:
    """A model with every weight random; a fresh one leaves out attention, its output projections being zero."""
    model = init_model(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                scale = 0.5 if "embed" in name else 2 * weight.shape[1] ** -0.5
                weight.normal_(0, scale, generator=generator)
    return model.eval()


@pytest.fixture(scope="session", params=["qwen3", "gemma3"])
def model(request: pytest.FixtureRequest) -> Transformer:
    """Both kinds of attention: full with grouped heads, and sliding windows."""
    return random_model(QWEN if request.param == "qwen3" else GEMMA)


@pytest.fixture(scope="session")
def qwen() -> Transformer:
    """The Qwen3-shaped model."""
    return random_model(QWEN)


@pytest.fixture(scope="session")
def folder(qwen: Transformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a folder."""
    path = tmp_path_factory.mktemp("model")
    save_model(qwen, path, None)
    write_json(path / "generation_config.json", {"eos_token_id": [3, 5]})
    return path


def prompt_of(length: int, seed: int = 0) -> list[int]:
    """A random prompt."""
    return torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
