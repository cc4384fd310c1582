"""8-bit layers: near the exact product, the same for a row whatever its neighbours, and whole engines on them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from causerie.core import CauserieError
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.int8 import Int8Linear
from causerie.model import Transformer

from .tiny import prompt_of

pytestmark = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs a processor with VNNI instructions")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_near_and_rows_independent(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(70, 96, generator=generator), torch.randn(70, generator=generator)
    x = (torch.randn(2, 5, 96, generator=generator) * torch.tensor([1e-3, 1, 50, 1, 1])[:, None]).to(dtype)
    layer = Int8Linear(weight, bias)
    exact = x.float() @ weight.T + bias
    error = (layer(x).float() - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert layer(x).dtype == torch.float32
    assert error.max() < 0.02
    assert torch.equal(layer(x)[0, 2], layer(x[:1, 2:3])[0, 0])


def test_a_row_of_zeros_gives_the_bias() -> None:
    bias = torch.arange(4.0)
    assert torch.equal(Int8Linear(torch.randn(4, 8), bias)(torch.zeros(1, 8)), bias[None])


@pytest.mark.parametrize("kind", ["int8", "int8-head"])
def test_an_engine_on_8_bits_says_nearly_the_same(folder: Path, kind: Literal["int8", "int8-head"]) -> None:
    """Log-probabilities of forced tokens differ by little; greedy tokens may differ at near ties."""
    forced = Sampling(max_tokens=4, temperature=0, logprobs=True, logit_bias=((7, 1e4),))
    prompts = [prompt_of(20, seed=seed) for seed in range(3)]
    exact, rounded = (
        generate_batch(Engine(folder, EngineConfig(quantize=how)), prompts, forced) for how in (None, kind)
    )
    differences = [
        abs(a - b) for x, y in zip(exact, rounded, strict=True) for a, b in zip(x.logprobs, y.logprobs, strict=True)
    ]
    assert all(item.ids == [7] * 4 for item in rounded)
    assert 0 < sum(differences) / len(differences) < 0.3


def test_a_model_in_memory_is_left_as_it_is(qwen: Transformer) -> None:
    with pytest.raises(CauserieError) as caught:
        Engine(qwen, EngineConfig(quantize="int8"))
    assert caught.value.code == "CAU-3108"
