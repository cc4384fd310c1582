"""The GGUF reader: against the `gguf` package, and against damage."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.model import init_model, load_gguf, open_gguf
from causerie.model.quants import ENCODINGS, dequantise
from causerie.model.shape import ModelShape

gguf = pytest.importorskip("gguf")

SIZES: dict[str, Any] = {
    "n_layer": 7,
    "n_embd": 64,
    "n_head": 2,
    "n_kv_head": 1,
    "head_dim": 32,
    "ffn_dim": 96,
    "vocab_size": 50,
}
GEMMA = ModelShape(
    family="gemma3",
    **SIZES,
    rope_theta=1e6,
    sliding_window=8,
    local_layers=(True,) * 5 + (False, True),
    rope_local_theta=1e4,
)
QWEN = ModelShape(family="qwen3", **SIZES, tie_embeddings=False)
NAMES = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMS = {
    "qwen3": {"post_attention_layernorm": "ffn_norm"},
    "gemma3": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}


def write(
    path: Path, shape: ModelShape, tokens: tuple[list[str], list[float], list[int]] | None = None
) -> dict[str, torch.Tensor]:
    """A GGUF file of a random model, written by the `gguf` package; returns the weights under our names."""
    names, scores, types = tokens or ([f"tök{number}" for number in range(shape.vocab_size)], [-1.5], [1])
    model = init_model(shape, seed=1)
    writer = gguf.GGUFWriter(path, shape.family)
    writer.add_context_length(512)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.ffn_dim)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_kv_head)
    writer.add_key_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)
    if shape.sliding_window:
        writer.add_sliding_window(shape.sliding_window)
    writer.add_token_list(names)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    parts = {**NAMES, **NORMS[shape.family]}
    weights = {}
    for name, parameter in model.named_parameters():
        weights[name] = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        layer, rest = name.split(".", 2)[1:] if name.startswith("layers.") else ("", name)
        theirs = parts[rest.removesuffix(".weight")]
        stored = weights[name].numpy() + (1.0 if "norm" in name and shape.family == "gemma3" else 0.0)
        writer.add_tensor(f"blk.{layer}.{theirs}.weight" if layer else f"{theirs}.weight", stored.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_dequantise_equals_gguf_package(encoding: int) -> None:
    found = ENCODINGS[encoding]
    kind = gguf.GGMLQuantizationType(encoding)
    assert gguf.GGML_QUANT_SIZES[kind] == (found.values, found.bytes)
    raw = np.random.default_rng(encoding).integers(0, 256, (7, found.bytes * 5), dtype=np.uint8)
    with np.errstate(all="ignore"):
        typed = raw.view({0: np.float32, 1: np.float16}.get(encoding, np.uint8))
        expected = gguf.quants.dequantize(typed, kind).astype(np.float32).reshape(-1)
    np.testing.assert_array_equal(dequantise(raw, encoding), expected)


@pytest.mark.parametrize("shape", [GEMMA, QWEN], ids=["gemma3", "qwen3"])
def test_loads_what_the_gguf_package_wrote(shape: ModelShape, tmp_path: Path) -> None:
    weights = write(tmp_path / "m.gguf", shape)
    model = load_gguf(tmp_path / "m.gguf")
    assert model.shape == ModelShape(**{**vars(shape), "max_seq_len": 512})
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=0, atol=3e-7)
    assert open_gguf(tmp_path / "m.gguf").metadata["tokenizer.ggml.tokens"][3] == "tök3"


def test_keeps_only_the_rows_asked_for(tmp_path: Path) -> None:
    weights = write(tmp_path / "m.gguf", QWEN)
    model = load_gguf(tmp_path / "m.gguf", keep=[4, 40, 5])
    assert model.shape.vocab_size == 3
    assert torch.equal(model.embed_tokens.weight, weights["embed_tokens.weight"][[4, 40, 5]])
    assert torch.equal(model.head_weight, weights["lm_head.weight"][[4, 40, 5]])
    with pytest.raises(CauserieError, match="CAU-3007"):
        load_gguf(tmp_path / "m.gguf", keep=[50])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write(path, QWEN)
    return path.read_bytes()


def try_to_read(path: Path) -> None:
    """Read everything; only our own error may come out."""
    try:
        file = open_gguf(path)
        for name in file.tensors:
            file.tensor(name)
        load_gguf(path)
    except CauserieError:
        return


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits_end_in_our_error_or_a_model(data: st.DataObject, sound: bytes, tmp_path: Path) -> None:
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 5000) | st.integers(0, 120))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "x.gguf").write_bytes(damaged)
    try_to_read(tmp_path / "x.gguf")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=200), counts=st.tuples(*[st.integers(0, 2**64 - 1)] * 2))
def test_arbitrary_bytes_end_in_our_error(tail: bytes, counts: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *counts) + tail)
    try_to_read(tmp_path / "x.gguf")


@pytest.mark.parametrize("keep", [0, 3, 23, 24, 100, 2000, -1])
def test_truncated_files_end_in_our_error(keep: int, sound: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(sound[:keep])
    with pytest.raises(CauserieError, match="CAU-3006"):
        open_gguf(tmp_path / "x.gguf")


def test_absent_file_and_unknown_encoding(sound: bytes, tmp_path: Path) -> None:
    with pytest.raises(CauserieError, match="CAU-1001"):
        open_gguf(tmp_path / "none.gguf")
    name = b"output_norm.weight" + struct.pack("<IQI", 1, 64, 0)
    assert sound.count(name) == 1
    (tmp_path / "x.gguf").write_bytes(sound.replace(name, name[:-4] + struct.pack("<I", 99)))
    with pytest.raises(CauserieError, match="CAU-3007"):
        open_gguf(tmp_path / "x.gguf")
