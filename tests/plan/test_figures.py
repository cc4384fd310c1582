"""Figures that others published: parameters to the unit, FLOPs of whole trainings, bytes of caches and states."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.plan import blueprint, count, memory, training_flops
from causerie.plan.count import CONVENTION

PARAMETERS = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
    "llama3-8b": 8_030_261_248,
    "llama3.1-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-8b": 8_190_735_360,
    "gemma3-270m": 268_098_176,
    "phi-1.5": 1_418_270_720,
    "phi-3-mini": 3_821_079_552,
    "mixtral-8x7b": 46_702_792_704,
    "qwen3-30b-a3b": 30_532_122_624,
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
}
"""Parameters that the safetensors files on the Hugging Face hub hold (BERT: with its masked language head)."""

ROUNDED = {
    "gpt3-6.7b": 6.7e9,
    "gpt3-13b": 13.0e9,
    "gpt3-175b": 175e9,
    "turing-nlg-17b": 17e9,
    "megatron-22b": 22e9,
    "megatron-530b": 530e9,
    "megatron-1t": 1e12,
    "bloom-176b": 176.247e9,
    "nemotron4-340b": 341e9,
    "deepseek-v3": 671e9,
    "modernbert-base": 149e6,
    "modernbert-large": 395e6,
    "mpt-7b": 6.65e9,
    "mpt-30b": 29.96e9,
}
"""As their papers or cards round them."""

TRAININGS = {
    "gpt3-175b": (300e9, 3.14e23),  # Brown et al. 2020, table D.1
    "gpt3-13b": (300e9, 2.31e22),
    "gpt3-6.7b": (300e9, 1.20e22),
    "llama3-405b": (15.6e12, 3.8e25),  # arXiv:2407.21783, section 3.2
}
"""Tokens, and FLOPs as published: 6 for each parameter and token, attention left out."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_files(name: str) -> None:
    assert count(blueprint(name))["parameters"] == PARAMETERS[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_parameters_round_to_the_published_ones(name: str) -> None:
    assert count(blueprint(name))["parameters"] == pytest.approx(ROUNDED[name], rel=0.015)


@pytest.mark.parametrize("name", TRAININGS)
def test_flops_of_a_training_are_the_published_ones_and_attentions(name: str) -> None:
    tokens, published = TRAININGS[name]
    plan = blueprint(name)
    assert 6 * plan.active_matrix_params * tokens == pytest.approx(published, rel=0.01)
    attention = 12 * plan.shape.n_layer * plan.shape.n_head * plan.shape.head_dim * 2048
    assert training_flops(plan, 2048) * tokens == pytest.approx(published + attention * tokens, rel=0.01)


@pytest.mark.parametrize(
    ("name", "tokens", "gigabytes"),
    [("llama3-8b", 8192, 1.074), ("llama3-70b", 8192, 2.684), ("gpt3-175b", 2048, 9.664), ("qwen3-8b", 32_768, 4.832)],
)
def test_caches_are_two_values_for_each_head_of_keys(name: str, tokens: int, gigabytes: float) -> None:
    """2 · layers · key heads · head width · 2 bytes a token: 131,072 bytes for Llama 3 8B."""
    shape = blueprint(name).shape
    found = memory(blueprint(name), seq_len=tokens)["cache"]
    assert found == 2 * shape.n_layer * shape.n_kv_head * shape.head_dim * 2 * tokens
    assert found / 1e9 == pytest.approx(gigabytes, abs=1e-3)


NAMES = st.sampled_from(sorted([*PARAMETERS, *ROUNDED]))


@settings(max_examples=40)
@given(name=NAMES, seq_len=st.integers(1, 8192))
def test_attention_is_the_only_part_that_grows_with_the_context(name: str, seq_len: int) -> None:
    plan = blueprint(name)
    short, long = count(plan, seq_len=seq_len), count(plan, seq_len=2 * seq_len)
    matrices = 6 * plan.active_matrix_params
    assert short["flops_per_token"] > matrices
    grown = long["flops_per_token"] - matrices
    assert grown <= 2 * (short["flops_per_token"] - matrices) + 2
    assert short["flops_per_token_forward"] == short["flops_per_token"] // 3
    assert short["convention"] == CONVENTION


@settings(max_examples=40)
@given(
    name=NAMES,
    batch=st.integers(1, 16),
    seq_len=st.integers(1, 4096),
    weight=st.sampled_from([2, 4]),
    rows=st.integers(1, 4096),
)
def test_memory_is_the_sum_of_its_parts_and_grows_with_each(
    name: str, batch: int, seq_len: int, weight: int, rows: int
) -> None:
    plan = blueprint(name)
    given_ = {"batch_size": batch, "seq_len": seq_len, "weight_bytes": weight, "logit_rows": rows}
    found = memory(plan, **given_)
    parts = ("weights", "gradients", "optimizer", "activations_estimate", "logits")
    assert found["training_total"] == sum(found[part] for part in parts)
    assert found["weights"] == found["gradients"] == plan.n_params * weight
    assert found["optimizer"] == 8 * plan.n_params
    assert found["logits"] == 4 * plan.shape.vocab_size * min(batch * seq_len, rows)
    twice = memory(plan, **{**given_, "batch_size": 2 * batch})
    assert twice["activations_estimate"] == 2 * found["activations_estimate"]
    assert twice["cache"] == 2 * found["cache"]
    again = memory(plan, **given_, recompute=True)
    assert (
        again["activations_estimate"]
        <= found["activations_estimate"] + batch * seq_len * plan.shape.n_layer * plan.shape.n_embd * 2
    )
    assert again["weights"] == found["weights"]


@pytest.mark.parametrize("name", [name for name in PARAMETERS if "-8x" not in name and "a3b" not in name])
def test_embeddings_are_counted_once_where_they_are_tied(name: str) -> None:
    figures, shape = count(blueprint(name)), blueprint(name).shape
    tables = figures["parameters"] - figures["parameters_without_embedding"]
    table = shape.vocab_size * shape.n_embd
    assert tables >= table
    assert tables < table * (1.2 if shape.tie_embeddings else 2.2)
    met = figures["matrix_parameters"]
    assert met < figures["parameters"]
    assert math.isclose(met, figures["parameters"] - (0 if shape.tie_embeddings else table), rel_tol=0.02)
