"""bfloat16 layers in oneDNN's order: torch's product, whatever the slabs and the neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.infer.packed import WIDTH, PackedLinear, packs
from causerie.model import Transformer

from .tiny import VOCAB, prompt_of

WEIGHTS = torch.randn(70, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
pytestmark = pytest.mark.skipif(not packs(WEIGHTS), reason="needs a processor that multiplies bfloat16")


def rows(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, count, 96, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("bias", [None, torch.linspace(-3, 3, 70).bfloat16()], ids=["bare", "bias"])
@pytest.mark.parametrize("wide", [False, True], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("slab", [1000, 32, 7])
def test_products_are_torchs(monkeypatch: pytest.MonkeyPatch, bias: torch.Tensor | None, wide: bool, slab: int) -> None:
    monkeypatch.setattr("causerie.infer.packed.SLAB", slab)
    x = rows(5)
    found = PackedLinear(WEIGHTS, bias, wide=wide)(x)
    exact = F.linear(x.double(), WEIGHTS.double(), None if bias is None else bias.double())
    assert found.dtype == (torch.float32 if wide else torch.bfloat16)
    assert found.shape == (2, 5, 70)
    assert ((found.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()  # rounded once


def test_the_layer_keeps_its_own_weights() -> None:
    weight = WEIGHTS.clone()
    layer = PackedLinear(weight)
    before = layer(rows(3))
    weight.zero_()
    assert torch.equal(layer(rows(3)), before)


@pytest.mark.parametrize("width", [96, 640, 1024, 1536, 2048, 3000])
def test_a_row_does_not_depend_on_its_neighbours(width: int) -> None:
    """Bit for bit; beyond `WIDTH` inputs oneDNN alone would not do that."""
    generator = torch.Generator().manual_seed(width)
    layer = PackedLinear(torch.randn(640, width, generator=generator).bfloat16())
    for count in (2, 8, 33, 64):
        x = torch.randn(count, width, generator=generator).bfloat16()
        assert torch.equal(torch.cat([layer(row[None]) for row in x]), layer(x)), count


def test_wide_inputs_are_added_up() -> None:
    """Two roundings instead of one, and a bias once."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(50, 2 * WIDTH + 5, generator=generator).bfloat16()
    bias, x = torch.ones(50).bfloat16() * 1000, torch.randn(7, 2 * WIDTH + 5, generator=generator).bfloat16()
    error = PackedLinear(weight, bias)(x).double() - F.linear(x.double(), weight.double(), bias.double())
    assert error.abs().max() < 1500 * 2**-8 * 2


@pytest.mark.parametrize("kind", [torch.float32, torch.float16], ids=str)
def test_other_types_are_not_packed(kind: torch.dtype) -> None:
    assert not packs(WEIGHTS.to(kind))
    assert not packs(WEIGHTS.to("meta"))


def test_an_engine_in_bfloat16_scores_like_the_model(folder: Path, qwen: Transformer) -> None:
    """Within bfloat16's own error of the float32 model's log-probabilities."""
    prompt = prompt_of(40)
    engine = Engine(folder, EngineConfig(dtype="bfloat16"))
    (done,) = generate_batch(engine, [prompt], Sampling(max_tokens=0, prompt_logprobs=True))
    with torch.inference_mode():
        exact = qwen.logits(qwen(torch.tensor([prompt]))[0]).log_softmax(-1)
    scores = [score for score in done.prompt_logprobs or [] if score is not None]
    wanted = [float(exact[place, token]) for place, token in enumerate(prompt[1:])]
    assert len(scores) == len(prompt) - 1
    assert sum(abs(a - b) for a, b in zip(scores, wanted, strict=True)) / len(scores) < 0.1


def test_seeded_answers_in_bfloat16_do_not_depend_on_the_batch(folder: Path) -> None:
    config = EngineConfig(dtype="bfloat16", block_size=4, n_blocks=400)
    prompts = [prompt_of(3 + 5 * index, seed=index) for index in range(8)]
    settings = [Sampling(max_tokens=20, seed=index) for index in range(8)]
    together = generate_batch(Engine(folder, config), prompts, settings)
    alone = [generate_batch(Engine(folder, config), [p], s)[0] for p, s in zip(prompts, settings, strict=True)]
    assert [item.ids for item in together] == [item.ids for item in alone]
    assert all(0 <= token < VOCAB for item in together for token in item.ids)
