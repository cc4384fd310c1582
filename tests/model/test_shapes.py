"""Named shapes: every one builds, counts what transformers counts, and is near what its authors state."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from causerie.core import CauserieError
from causerie.model import (
    NAMED_SHAPES,
    Transformer,
    encoder_of,
    named_shape,
    shape_from_depth,
    shape_from_hf,
    shape_to_hf,
)

EXACT = {
    "gpt2-124m": 124_439_808,
    "gpt2-1558m": 1_557_611_200,
    "bert-base": 109_514_298,
    "modernbert-base": 149_655_232,
    "phi-1.5": 1_418_270_720,
    "phi-3-mini": 3_821_079_552,
    "llama3-8b": 8_030_261_248,
    "llama3-405b": 405_853_388_800,
    "qwen3-0.6b": 596_049_920,
    "gemma3-270m": 268_098_176,
}
"""Parameters of the released weights, as their hubs state them."""
OWN_READING = {"gpt3-175b", "turing-nlg-17b", "mai-1-500b"}


@pytest.mark.parametrize("name", NAMED_SHAPES)
def test_every_named_shape_builds_on_meta_and_is_counted_exactly(name: str) -> None:
    shape = named_shape(name).shape
    with torch.device("meta"):
        model = Transformer(shape)
    assert sum(p.numel() for p in model.parameters()) == shape.n_params
    tables = ("embed_tokens", "embed_positions", "embed_types", "lm_head")
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and not n.startswith(tables))
    assert shape.n_matrix_params == matrices + shape.vocab_size * shape.n_embd


@pytest.mark.parametrize(
    "name", ["gpt2-124m", "bert-large", "modernbert-large", "phi-1.5", "phi-3-mini", "llama3.1-8b"]
)
def test_transformers_builds_the_same_from_our_config(name: str) -> None:
    import transformers

    shape = named_shape(name).shape
    config = transformers.AutoConfig.for_model(**shape_to_hf(shape))
    auto = transformers.AutoModelForCausalLM if shape.row.causal else transformers.AutoModelForMaskedLM
    with torch.device("meta"):
        assert auto.from_config(config).num_parameters() == shape.n_params


@pytest.mark.parametrize("name", NAMED_SHAPES)
def test_configs_come_back(name: str) -> None:
    shape = named_shape(name).shape
    assert shape_from_hf(shape_to_hf(shape)) == shape


def test_counts_of_released_weights() -> None:
    assert {name: named_shape(name).shape.n_params for name in EXACT} == EXACT


@pytest.mark.parametrize("name", NAMED_SHAPES)
def test_published_sizes_and_sources(name: str) -> None:
    row = named_shape(name)
    assert row.source
    assert row.shape.n_params == pytest.approx(row.published_params, rel=0.1 if name == "phi-1.5" else 0.02)
    assert bool(row.note) or name not in OWN_READING


def test_mai_1_says_that_it_is_our_reading() -> None:
    assert "our reading" in named_shape("mai-1-500b").note


def test_an_unknown_name_is_refused_with_what_is_near() -> None:
    with pytest.raises(CauserieError, match="CAU-3001") as caught:
        named_shape("llama3-405")
    assert "llama3-405b" in str(caught.value)


def test_shapes_need_no_torch() -> None:
    code = "import sys; from causerie.model import NAMED_SHAPES, shape_from_depth; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("depth", [2, 5, 12])
def test_our_encoders_are_modernberts_in_transformers(depth: int) -> None:
    import transformers

    shape = encoder_of(shape_from_depth(depth, 1000))
    config = transformers.AutoConfig.for_model(**shape_to_hf(shape))
    with torch.device("meta"):
        assert transformers.AutoModelForMaskedLM.from_config(config).num_parameters() == shape.n_params
    assert shape.n_embd == shape_from_depth(depth, 1000).n_embd
