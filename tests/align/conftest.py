"""A tiny random chat model as a folder, and preferences that a tiny model can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import write_jsonl
from causerie.model import ModelShape, init_model, save_model
from causerie.text import train_bpe

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "said",
    "yes",
    "or",
    "no",
    "to",
    "every",
    "dog",
    "in",
    "town",
    "while",
    "rain",
    "fell",
    "softly",
    "over",
    "old",
    "grey",
    "roofs",
]
SHAPE: dict[str, Any] = {
    "family": "qwen3",
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 2,
    "n_kv_head": 1,
    "head_dim": 16,
    "ffn_dim": 64,
    "max_seq_len": 256,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: two layers, a tokenizer of 300 tokens, every weight random."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_bpe([" ".join(WORDS), "user assistant system"] * 5, 300)
    model = init_model(ModelShape(**SHAPE, vocab_size=tokenizer.vocab_size), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    tokenizer.save(folder)
    save_model(model, folder, folder)
    return folder


def ask(text: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="session")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs to learn and eight held out, in which the answer "yes" is chosen over "no"; and the same as votes."""
    folder = tmp_path_factory.mktemp("preferences")
    for prefix, first in (("", 0), ("heldout-", 8)):
        prompts = [ask(f"{WORDS[i]} {WORDS[i + 1]} {WORDS[i + 2]}") for i in range(first, first + 8)]
        write_jsonl(
            folder / f"{prefix}pairs.jsonl",
            [
                {"id": f"p{i}", "prompt": prompt, "chosen": "yes yes", "rejected": "no, no dog"}
                for i, prompt in enumerate(prompts)
            ],
        )
        write_jsonl(
            folder / f"{prefix}unpaired.jsonl",
            [
                {
                    "id": f"u{i}{label}",
                    "prompt": prompt,
                    "completion": "yes yes" if label else "no, no dog",
                    "label": label,
                }
                for i, prompt in enumerate(prompts)
                for label in (True, False)
            ],
        )
    return folder
