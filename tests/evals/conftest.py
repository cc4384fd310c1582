"""A tiny random chat model as a folder, and a changed copy of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from causerie.core import write_json, write_jsonl
from causerie.evals import EvalConfig
from causerie.evals.subject import Subject
from causerie.model import ModelShape, init_model, load_model, save_model
from causerie.text import train_bpe

TEXT = "the cat sat on a mat and said yes or no to every dog in town while rain fell softly over old grey roofs"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: two layers, a tokenizer of 300 tokens, every weight random."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_bpe([TEXT, "user assistant system Question: Answer:"] * 5, 300)
    shape = ModelShape(
        family="qwen3",
        n_layer=2,
        n_embd=32,
        n_head=2,
        n_kv_head=1,
        head_dim=16,
        ffn_dim=64,
        vocab_size=tokenizer.vocab_size,
        max_seq_len=128,
    )
    model = init_model(shape, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    tokenizer.save(folder)
    save_model(model, folder, folder)
    return folder


@pytest.fixture(scope="session")
def uniform(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shape with zero weights: every token has probability 1/V, so every figure has a closed form."""
    folder = tmp_path_factory.mktemp("uniform")
    model = load_model(tiny)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    save_model(model, folder, tiny)
    return folder


@pytest.fixture
def subject(tiny: Path) -> Subject:
    """The tiny model under default settings with short answers."""
    return Subject(tiny, EvalConfig(model=tiny, max_tokens=12))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file per suite."""
    folder = tmp_path_factory.mktemp("data")
    ask = [{"role": "user", "content": "the cat?"}]
    write_jsonl(folder / "documents.jsonl", [{"text": "the cat sat on a mat " * n} for n in (1, 3, 9)] + [{"text": ""}])
    write_jsonl(
        folder / "chats.jsonl",
        [{"messages": [*ask, {"role": "assistant", "content": answer}]} for answer in ("yes", "no dog", "rain fell")],
    )
    prefs = folder / "preferences"
    prefs.mkdir()
    pairs = [{"id": f"p{i}", "prompt": ask, "chosen": "yes " * (i + 1), "rejected": "no"} for i in range(3)]
    write_jsonl(prefs / "heldout-pairs.jsonl", pairs)
    votes = [{"id": f"v{i}", "prompt": ask, "completion": "yes" if i else "no", "label": i > 0} for i in range(3)]
    write_jsonl(prefs / "heldout-unpaired.jsonl", votes)
    write_jsonl(
        folder / "prompts.jsonl", [{"prompt": "the cat"}, {"messages": [*ask, {"role": "assistant", "content": "x"}]}]
    )
    write_jsonl(
        folder / "ifeval.jsonl",
        [
            {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
            {
                "key": 2,
                "prompt": "A title and 900 words.",
                "instruction_id_list": ["detectable_format:title", "length_constraints:number_words"],
                "kwargs": [{}, {"num_words": 900, "relation": "at least"}],
            },
        ],
    )
    write_jsonl(
        folder / "choice.jsonl",
        [
            {"question": "What sat?", "choices": ["the cat", "rain"], "answer": 0},
            {"question": "What fell?", "choices": ["the cat", "rain", "roofs"], "answer": "rain"},
            {"question": "What is grey?", "choices": ["a mat", "roofs"], "answer": "B"},
        ],
    )
    write_jsonl(
        folder / "passages.jsonl",
        [
            {"text": "the cat sat on a mat and the dog sat on a mat"},
            {"context": "rain fell softly ", "continuation": "over"},
        ],
    )
    write_json(folder / "note.json", {})
    return folder
