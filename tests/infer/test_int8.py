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


@pytest.mark.parametrize("rows", [1, 3])
def test_a_row_of_zeros_gives_the_bias(rows: int) -> None:
    bias = torch.arange(4.0)
    assert torch.equal(Int8Linear(torch.randn(4, 8), bias)(torch.zeros(rows, 8)), bias.expand(rows, 4))


@pytest.mark.parametrize("width", [8, 640, 1000, 2048, 7000])
@pytest.mark.parametrize("kind", ["normal", "extreme", "spread"])
def test_a_row_alone_takes_another_kernel_to_the_same_bits(width: int, kind: str) -> None:
    """Also where sums of integers are larger than float32 holds exactly (127 * 127 * 7,000)."""
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(50, width, generator=generator)
    x = torch.randn(6, width, generator=generator)
    if kind == "extreme":
        weight, x = weight.sign(), x.abs().sign() * torch.tensor([1.0, -1.0])[torch.arange(6) % 2][:, None]
        weight[0] = 1
    elif kind == "spread":
        x = x * 10 ** torch.linspace(-30, 6, 6)[:, None]
    layer = Int8Linear(weight, torch.linspace(-1, 1, 50))
    assert layer._plain is not None
    together = layer(x)
    assert torch.equal(torch.cat([layer(row[None]) for row in x]), together)
    layer._plain = None
    assert torch.equal(torch.cat([layer(row[None]) for row in x]), together)


def test_large_products_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their plain order would cost as much memory again; rounding by parts gives what rounding the whole does."""
    weight, x = torch.randn(70, 16), torch.randn(2, 16)
    whole = Int8Linear(weight)
    monkeypatch.setattr("causerie.infer.int8.SMALL", 70 * 16 - 1)
    monkeypatch.setattr("causerie.infer.int8.PART", 32)
    parts = Int8Linear(weight)
    assert whole._plain is not None
    assert parts._plain is None
    assert torch.equal(parts(x), whole(x))


@pytest.mark.parametrize("count", [15, 16, 17, 40])
def test_many_rows_are_rounded_as_few_are(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Both ways to bytes, about the number from which on the other is taken; halves and ends of the range too."""
    monkeypatch.setattr("causerie.infer.int8.MANY", 16 * 64)
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, 64, generator=generator)
    x[::3] = (torch.arange(64) - 32).float() * 2 + 1  # peak over 127 times halves
    x[1::3, :2] = torch.tensor([7.0, -7.0])
    layer = Int8Linear(torch.randn(20, 64, generator=generator))
    assert torch.equal(torch.cat([layer(row[None]) for row in x]), layer(x))


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
