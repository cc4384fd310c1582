"""Small models, tokenizers and rows that the tests of this room share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from causerie.model import ModelShape, Transformer, init_model, save_model
from causerie.text import Tokenizer, train_bpe
from causerie.train import Batch, LossParts, TrainSettings
from causerie.train.pretraining import next_token_loss

WORDS = "the cat sat on the mat and the dog ran to the big red house by the sea"
SHAPE = ModelShape(
    family="qwen3", n_layer=2, n_embd=16, n_head=2, n_kv_head=1, head_dim=8, ffn_dim=32, vocab_size=64, max_seq_len=64
)


def settings(**changes: Any) -> TrainSettings:
    """Settings of a run of a second: 12 steps of 4 rows of 8 tokens, float32, not compiled."""
    values: dict[str, Any] = {
        "name": "tiny",
        "steps": 12,
        "batch_size": 4,
        "seq_len": 8,
        "compile": "off",
        "precision": "fp32",
        "device": "cpu",
        "checkpoint_every": 3,
        "warmup": 2,
    }
    return TrainSettings(**{**values, **changes})


def tiny_model(seed: int = 0, **changes: Any) -> Transformer:
    """A fresh model of some thousand weights."""
    from dataclasses import replace

    return init_model(replace(SHAPE, **changes), seed)


class RandomRows:
    """Random tokens that repeat in pairs (so there is something to learn), cut into micro-batches of given sizes."""

    def __init__(self, micro: Sequence[int] = (4,), seq_len: int = 8, fingerprint: str = "random") -> None:
        self.micro, self.seq_len, self.fingerprint = micro, seq_len, fingerprint

    def micro_batches(self, step: int) -> list[Batch]:
        """Sizes differ in tokens: padding targets are left out by the objective below."""
        dice = torch.Generator().manual_seed(step)
        rows = sum(self.micro)
        tokens = torch.randint(0, 8, (rows, self.seq_len + 1), generator=dice)
        tokens[:, 1::2] = tokens[:, 0:-1:2]
        whole = {
            "ids": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "positions": torch.arange(self.seq_len).expand(rows, -1),
            "doc_ids": torch.zeros(rows, self.seq_len, dtype=torch.int32),
        }
        starts = [sum(self.micro[:i]) for i in range(len(self.micro))]
        return [
            {name: value[at : at + size] for name, value in whole.items()}
            for at, size in zip(starts, self.micro, strict=True)
        ]


def objective(model: Transformer, batch: Batch) -> LossParts:
    """The pretraining objective with a metric."""
    parts = next_token_loss(model, batch)
    return parts._replace(metrics={"doubled": 2 * parts.loss_sum.detach()})


def tiny_tokenizer(extra: Sequence[str] = ()) -> Tokenizer:
    """A byte-level BPE of 300 tokens."""
    return train_bpe([WORDS, *extra] * 4, 300)


def model_folder(folder: Path, seed: int = 0) -> Path:
    """A tiny model as a Hugging Face folder with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save(folder)
    save_model(tiny_model(seed, vocab_size=tokenizer.vocab_size), folder, folder)
    return folder


def conversation(question: str, answer: str) -> dict[str, Any]:
    """One row of two messages."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """A JSONL file; text rows are written as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def weights_digest(model: Transformer) -> str:
    """SHA-256 over all weights in order."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
