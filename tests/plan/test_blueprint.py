"""Blueprints: counts of models with experts against transformers' own modules and published figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from causerie.core import CauserieError
from causerie.model import NAMED_SHAPES, ModelShape, shape_from_depth
from causerie.plan import (
    BLUEPRINTS,
    Blueprint,
    Experts,
    blueprint,
    blueprint_of,
    count,
    find_model,
    memory,
    plan_models,
)

PUBLISHED = {
    "mixtral-8x7b": (46.7e9, 12.9e9),
    "qwen3-30b-a3b": (30.5e9, 3.3e9),
    "deepseek-v3": (671e9, 37e9),
}
"""Parameters in all and active, as their authors state them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_count_as_published(name: str) -> None:
    figures = count(blueprint(name), seq_len=4096)
    total, active = PUBLISHED[name]
    assert figures["parameters"] == pytest.approx(total, rel=0.005)
    assert figures["active_parameters"] == pytest.approx(active, rel=0.03)


def meta_parameters(model_type: str, **fields: object) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields))
    return sum(weight.numel() for weight in model.parameters())


def test_mixtral_equals_transformers_modules() -> None:
    plan = blueprint("mixtral-8x7b")
    shape = plan.shape
    theirs = meta_parameters(
        "mixtral", hidden_size=4096, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14_336, num_local_experts=8, num_experts_per_tok=2, vocab_size=32_000, head_dim=128,
    )  # fmt: skip
    assert replace(plan, shape=replace(shape, n_layer=2)).n_params == theirs


def test_qwen3_moe_equals_transformers_modules() -> None:
    plan = blueprint("qwen3-30b-a3b")
    theirs = meta_parameters(
        "qwen3_moe", hidden_size=2048, num_hidden_layers=3, num_attention_heads=32, num_key_value_heads=4,
        head_dim=128, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, vocab_size=151_936,
        intermediate_size=6144, tie_word_embeddings=False,
    )  # fmt: skip
    assert replace(plan, shape=replace(plan.shape, n_layer=3)).n_params == theirs


def test_deepseek_is_near_transformers_modules() -> None:
    """Ours leaves out the two small norms of latent attention and the routers' corrections."""
    plan = blueprint("deepseek-v3")
    theirs = meta_parameters(
        "deepseek_v3", hidden_size=7168, num_hidden_layers=4, num_attention_heads=128, num_key_value_heads=128,
        intermediate_size=18_432, moe_intermediate_size=2048, n_routed_experts=256, n_shared_experts=1,
        num_experts_per_tok=8, first_k_dense_replace=3, vocab_size=129_280, q_lora_rank=1536, kv_lora_rank=512,
        qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128, tie_word_embeddings=False,
    )  # fmt: skip
    ours = replace(plan, shape=replace(plan.shape, n_layer=4)).n_params
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("name", [*NAMED_SHAPES])
def test_a_dense_blueprint_counts_as_its_shape(name: str) -> None:
    plan = blueprint(name)
    assert plan.n_params == plan.shape.n_params
    assert plan.active_matrix_params == plan.shape.n_matrix_params
    assert plan.expert_params == plan.expert_layers == 0
    assert memory(plan, seq_len=64)["cache_per_token"] == plan.shape.kv_bytes_per_token()


@pytest.mark.parametrize("name", [*BLUEPRINTS])
def test_every_blueprint_is_counted_and_says_where_it_is_from(name: str) -> None:
    plan = blueprint(name)
    figures = count(plan)
    assert figures["parameters"] >= figures["matrix_parameters"] > 0
    assert figures["flops_per_token"] > 6 * figures["matrix_parameters"]
    assert len(plan.note) > 10


def test_trillion_is_a_trillion_with_a_tenth_active() -> None:
    figures = count(blueprint("moe-1t"), seq_len=4096)
    assert figures["parameters"] == pytest.approx(1e12, rel=0.01)
    assert figures["active_parameters"] == pytest.approx(1e11, rel=0.05)
    assert count(blueprint("mai-1-500b"))["parameters"] == pytest.approx(5e11, rel=0.01)


def test_latent_attention_caches_less() -> None:
    plan = blueprint("deepseek-v3")
    latent = memory(plan, seq_len=1024)["cache_per_token"]
    assert latent == 61 * 576 * 2
    assert latent < plan.shape.kv_bytes_per_token() / 50


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 6), count_=st.integers(1, 16), dim=st.integers(1, 64), shared=st.integers(0, 32),
    dense=st.integers(0, 6), data=st.data(),
)  # fmt: skip
def test_experts_add_up(layers: int, count_: int, dim: int, shared: int, dense: int, data: st.DataObject) -> None:
    """All experts active: a token meets every matrix, so active plus lookups plus norms is all there is."""
    dense = min(dense, layers)
    active = data.draw(st.integers(1, count_))
    shape = replace(shape_from_depth(2, 64), n_layer=layers, tie_embeddings=True)
    plan = Blueprint("x", shape, Experts(count_, active, dim, shared, dense))
    everything = replace(plan, experts=Experts(count_, count_, dim, shared, dense))
    norms = shape.n_params - shape.n_matrix_params
    assert everything.active_matrix_params + norms == everything.n_params == plan.n_params
    idle = (count_ - active) * plan.expert_matrix * plan.expert_layers
    assert plan.active_matrix_params == everything.active_matrix_params - idle


def test_one_expert_of_the_mlps_width_is_a_dense_model_with_a_router() -> None:
    shape = shape_from_depth(4, 128)
    plan = Blueprint("x", shape, Experts(1, 1, shape.ffn_dim))
    assert plan.n_params == shape.n_params + shape.n_layer * shape.n_embd
    assert plan.active_matrix_params == shape.n_matrix_params + shape.n_layer * shape.n_embd


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"count": 0, "active": 1, "dim": 8}, "experts.count"),
        ({"count": 4, "active": 5, "dim": 8}, "experts.active"),
        ({"count": 4, "active": 2, "dim": -1}, "experts.dim"),
        ({"count": 4, "active": 2, "dim": 8, "shared_dim": -1}, "experts.shared_dim"),
        ({"count": 4, "active": 2, "dim": 8, "dense_layers": 9}, "experts.dense_layers"),
    ],
)
def test_impossible_experts_are_refused_by_field(fields: dict[str, int], field: str) -> None:
    with pytest.raises(CauserieError) as caught:
        Blueprint("x", shape_from_depth(4, 128), Experts(**fields))
    assert caught.value.code == "CAU-4301"
    assert field in caught.value.where
    assert caught.value.fix


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(CauserieError) as caught:
        find_model("mai-500b")
    assert caught.value.code == "CAU-4301"
    assert "mai-1-500b" in caught.value.fix


def test_a_model_is_found_by_depth_folder_or_name(tmp_path: object) -> None:
    assert find_model("depth:3").shape == shape_from_depth(3, 8192)
    assert find_model("gpt3-175b").shape == NAMED_SHAPES["gpt3-175b"].shape
    assert blueprint_of(shape_from_depth(2, 64)).name == "model"


def test_the_list_has_every_model_and_machine() -> None:
    listed = plan_models()
    names = [row["name"] for row in listed["models"]]
    assert {"gpt3-175b", "mai-1-500b", "moe-1t", "deepseek-v3"} <= set(names)
    assert len(names) == len(set(names)) == len(NAMED_SHAPES) + len(BLUEPRINTS)
    kinds = {row["name"] for row in listed["hardware"]}
    assert {"a100-80gb", "h100-80gb", "h200-141gb", "b200-192gb", "tpu-like", "arm-cpu", "two-cores"} <= kinds


def test_windows_cap_reach() -> None:
    shape = replace(shape_from_depth(3, 100), sliding_window=16, local_layers=(True, True, False))
    assert isinstance(shape, ModelShape)
    assert blueprint_of(shape).reach(64) == 16 + 16 + 64
    assert blueprint_of(shape).reach(8) == 24
