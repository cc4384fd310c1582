"""Shapes: counts against the real module, the depth dial, refusal of impossible sizes."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from causerie.core import CauserieError
from causerie.model import Transformer, init_model, shape_from_depth
from causerie.model.shape import ModelShape

GEMMA = ModelShape(
    family="gemma3",
    n_layer=6,
    n_embd=32,
    n_head=4,
    n_kv_head=1,
    head_dim=16,
    ffn_dim=48,
    vocab_size=77,
    sliding_window=4,
    local_layers=(True, True, True, True, True, False),
    rope_local_theta=1e4,
)


@pytest.mark.parametrize("shape", [GEMMA, shape_from_depth(3, 100), shape_from_depth(13, 100)])
def test_parameter_count_is_the_modules(shape: ModelShape) -> None:
    with torch.device("meta"):
        model = Transformer(shape)
    assert shape.n_params == sum(parameter.numel() for parameter in model.parameters())
    outside = {"embed_tokens.weight", "lm_head.weight"}
    counted = sum(parameter.numel() for name, parameter in model.named_parameters() if name not in outside)
    assert shape.n_params_without_embedding == counted
    assert shape.weight_bytes(2) * 8 == shape.training_bytes()


def test_the_dial_gives_the_sizes_promised() -> None:
    millions = {depth: shape_from_depth(depth, 4096).n_params_without_embedding / 1e6 for depth in (2, 4, 6, 8, 12)}
    assert millions == pytest.approx({2: 0.184, 4: 1.48, 6: 4.98, 8: 11.8, 12: 85}, rel=0.1)
    for depth in range(1, 65):
        shape = shape_from_depth(depth, 4096)
        assert shape.head_dim in (32, 64)
        assert shape.n_head % shape.n_kv_head == 0


def test_windows_and_thetas_follow_the_pattern() -> None:
    assert [GEMMA.window(layer) for layer in range(6)] == [4, 4, 4, 4, 4, 0]
    assert [GEMMA.theta(layer) for layer in (0, 5)] == [1e4, 1e5]
    assert GEMMA.embed_scale == 32**0.5
    assert shape_from_depth(2, 9).window(1) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"family": "mamba"},
        {"n_layer": 0},
        {"n_embd": 1 << 40},
        {"vocab_size": 2.5},
        {"n_kv_head": 3},
        {"head_dim": 7},
        {"local_layers": (True,)},
        {"sliding_window": 0},
        {"rope_theta": -1.0},
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CauserieError, match="CAU-3001"):
        dataclasses.replace(GEMMA, **change)


def test_depth_out_of_range() -> None:
    with pytest.raises(CauserieError, match="CAU-3001"):
        shape_from_depth(0, 100)


def test_init_is_the_same_for_a_seed() -> None:
    shape = shape_from_depth(2, 50)
    first, again, other = init_model(shape, 1), init_model(shape, 1), init_model(shape, 2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)


@pytest.mark.parametrize("depth", [2, 8, 13])
def test_an_untrained_model_knows_nothing(depth: int) -> None:
    shape = dataclasses.replace(shape_from_depth(depth, 500), n_layer=2)
    model = init_model(shape, 1)
    ids = torch.randint(0, 500, (1, 200), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model.logits(model(ids))[0, :-1], ids[0, 1:])
    assert abs(loss.item() - math.log(500)) < 0.2


def test_the_front_door_needs_no_torch() -> None:
    code = "import sys, causerie.model as m; m.shape_from_depth(2, 9); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
