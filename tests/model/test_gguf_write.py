"""GGUF files that we write: read back by the `gguf` package, by ourselves, and run by llama.cpp where it is there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from causerie.core import CauserieError
from causerie.model import (
    Transformer,
    add_lora,
    init_model,
    load_gguf,
    load_model,
    named_shape,
    open_gguf,
    save_gguf,
    shape_from_depth,
)
from causerie.model.gguf_tokenizer import chat_template, tokenizer_metadata
from causerie.model.gguf_write import TensorOut, encode, write_gguf
from causerie.text import load_tokenizer, train_bpe
from tests.model.references import DECODERS, saved_reference, tokens

gguf = pytest.importorskip("gguf")

EXACT = [name for name in DECODERS if name not in ("gemma3", "qwen3-windows", "qwen2-windows", "phi3-windows")]
LLAMA = os.environ.get("CAUSERIE_LLAMA_PYTHON", "")
"""A Python that has llama-cpp-python."""
RUN = """
import json, sys
from llama_cpp import Llama
job = json.loads(sys.stdin.read())
llm = Llama(job["path"], n_ctx=128, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, type_k=0, type_v=0)
llm.eval(job["ids"])
told = {"logits": llm.scores[: len(job["ids"])].tolist()}
told["texts"] = [llm.tokenize(text.encode(), add_bos=False, special=False) for text in job["texts"]]
print(json.dumps(told))
"""


def loaded(name: str, folder: Path) -> Transformer:
    saved_reference(name, folder)
    return load_model(folder)


def logits(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(ids))


def in_llama(path: Path, ids: list[int], texts: list[str] | None = None) -> dict[str, Any]:
    if not LLAMA:
        pytest.skip("CAUSERIE_LLAMA_PYTHON names no Python with llama-cpp-python")
    job = json.dumps({"path": str(path), "ids": ids, "texts": texts or []})
    done = subprocess.run([LLAMA, "-c", RUN], input=job, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", EXACT)
def test_what_we_write_we_read(name: str, tmp_path: Path) -> None:
    model = loaded(name, tmp_path)
    assert save_gguf(model, tmp_path / "x.gguf", None, dtype="f32") == ""
    again = load_gguf(tmp_path / "x.gguf")
    assert again.shape == model.shape
    state = again.state_dict()
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=0, atol=3e-7, msg=key)


@pytest.mark.parametrize(("kind", "most"), [("f16", 2e-2), ("q8_0", 0.3)])
def test_smaller_types_stay_near(kind: Any, most: float, tmp_path: Path) -> None:
    model = loaded("qwen3", tmp_path)
    save_gguf(model, tmp_path / "x.gguf", None, dtype=kind)
    ids = tokens(1, 20)
    difference = (logits(load_gguf(tmp_path / "x.gguf"), ids) - logits(model, ids)).abs().max()
    assert 0 < difference < most


def test_the_gguf_package_reads_the_same_tensors(tmp_path: Path) -> None:
    model = loaded("qwen3", tmp_path)
    save_gguf(model, tmp_path / "x.gguf", None, dtype="q8_0")
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert read["token_embd.weight"].tensor_type.name == "Q8_0"
    assert read["blk.0.attn_q_norm.weight"].tensor_type.name == "F32"
    ours = open_gguf(tmp_path / "x.gguf")
    assert set(read) == set(ours.tensors)
    for name, tensor in read.items():
        theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(ours.tensors[name].shape)
        assert np.array_equal(theirs, ours.tensor(name)), name


def test_eight_bits_are_ggmls_own() -> None:
    values = np.random.default_rng(0).normal(size=(40, 96)).astype(np.float32)
    values[3] = 0
    values[4, :32] = np.arange(32) - 16.0  # halves that round away from zero
    ours = encode(values, 8).reshape(40, -1)
    assert np.array_equal(ours, gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0))


def test_metadata_of_every_kind_comes_back(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "qwen3",
        "a.flag": True,
        "a.whole": 7,
        "a.real": 0.5,
        "a.words": ["é", "", "x"],
        "a.reals": [0.5, -1.0],
        "a.wholes": [3, -4],
    }
    write_gguf(tmp_path / "x.gguf", metadata, [TensorOut("t", (3,), 0, lambda: np.arange(3, dtype=np.float32))])
    assert open_gguf(tmp_path / "x.gguf").metadata == metadata
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    assert {key: fields[key].contents() for key in metadata} == metadata


def test_weights_beyond_16_bits_are_refused() -> None:
    with pytest.raises(CauserieError, match="CAU-3010"):
        encode(np.array([[1e6]], np.float32), 1)


@pytest.mark.parametrize("name", ["bert-base", "modernbert-base"])
def test_encoders_are_refused(name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        model = Transformer(named_shape(name).shape)
    with pytest.raises(CauserieError, match="CAU-3010"):
        save_gguf(model, tmp_path / "x.gguf", None)


def test_what_llama_cpp_would_compute_otherwise_is_refused_or_said(tmp_path: Path) -> None:
    gemma = loaded("gemma3", tmp_path / "gemma")  # its scale is not 1/sqrt(head_dim)
    with pytest.raises(CauserieError, match="CAU-3010"):
        save_gguf(gemma, tmp_path / "x.gguf", None)
    windows = loaded("qwen3-windows", tmp_path / "windows")
    assert "cut to 5" in save_gguf(windows, tmp_path / "x.gguf", None)
    assert load_gguf(tmp_path / "x.gguf").shape.max_seq_len == 5
    adapted = init_model(shape_from_depth(2, 64), 0)
    add_lora(adapted, 2, 2.0)
    with pytest.raises(CauserieError, match="CAU-3010"):
        save_gguf(adapted, tmp_path / "x.gguf", None)


def trained_tokenizer(folder: Path) -> Path:
    tokenizer = train_bpe(["the cat sat on the mat, l'eau et l'été, qu'il dit", "12 34 56\n\n  deux"] * 8, 330)
    tokenizer.save(folder)
    return folder


def test_our_tokenizer_travels(tmp_path: Path) -> None:
    folder = trained_tokenizer(tmp_path)
    size = load_tokenizer(folder).vocab_size
    entries, said = tokenizer_metadata(folder, size + 2)
    definition = json.loads((folder / "tokenizer.json").read_text())
    listed = entries["tokenizer.ggml.tokens"]
    assert len(listed) == len(entries["tokenizer.ggml.token_type"]) == size + 2
    assert all(listed[number] == token for token, number in definition["model"]["vocab"].items())
    assert listed[-1] == f"[PAD{size + 1}]"
    assert entries["tokenizer.ggml.merges"][0] == " ".join(definition["model"]["merges"][0])
    assert listed[entries["tokenizer.ggml.eos_token_id"]] in ("<|endoftext|>", "<|im_end|>")
    assert listed[entries["tokenizer.ggml.eot_token_id"]] == "<|im_end|>"
    assert entries["tokenizer.chat_template"] == chat_template(folder) != ""
    assert "llama-bpe" in said


@pytest.mark.parametrize(
    ("change", "cause"),
    [({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "WordPiece"), ({"model": {}}, "None")],
)
def test_tokenizers_of_other_kinds_are_refused(change: dict[str, Any], cause: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(change))
    with pytest.raises(CauserieError, match=cause):
        tokenizer_metadata(tmp_path, 10)


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CauserieError, match="no row"):
        tokenizer_metadata(trained_tokenizer(tmp_path), 100)


@pytest.mark.parametrize("name", EXACT)
def test_llama_cpp_computes_the_same(name: str, tmp_path: Path) -> None:
    model, ids = loaded(name, tmp_path), tokens(1, 20)
    save_gguf(model, tmp_path / "x.gguf", None, dtype="f32")
    theirs = torch.tensor(in_llama(tmp_path / "x.gguf", ids[0].tolist())["logits"])
    ours = logits(model, ids)[0]
    rounded = model.shape.row.activation != "silu"  # ggml's GELU reads a table in half precision
    assert (ours - theirs).abs().max() <= (5e-3 if rounded else 1e-4)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_llama_cpp_cuts_plain_texts_as_we_do(tmp_path: Path) -> None:
    folder = trained_tokenizer(tmp_path)
    tokenizer = load_tokenizer(folder)
    model = init_model(shape_from_depth(2, tokenizer.vocab_size), 0)
    save_gguf(model, tmp_path / "x.gguf", folder, dtype="f32")
    texts = ["the cat sat on the mat", "deux chats sur le mat, dit-il.", "12 34\n\n56"]
    told = in_llama(tmp_path / "x.gguf", [1, 2], texts)
    assert told["texts"] == [tokenizer.encode(text) for text in texts]
