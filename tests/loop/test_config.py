"""Settings of a round that cannot be are refused by name, before anything is gathered; those that can are not."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from causerie.core import CauserieError
from causerie.loop import ImproveConfig, improve, keep_improving

CONFIG = ImproveConfig(model="home")
NUMBERS = [item.name for item in fields(ImproveConfig) if isinstance(item.default, float)]
WHOLE = [item.name for item in fields(ImproveConfig) if type(item.default) is int]


def test_the_defaults_and_the_documented_special_values_pass() -> None:
    CONFIG.check()
    replace(CONFIG, minutes=-1.0, max_imported=-1, lora_rank=0, canary=0.0, canary_coalition=0.0, min_votes=0).check()
    replace(CONFIG, promise_margin=-9.0, loss_margin=-1.0, max_per_user=0, safety_prompts=0, canary=1.0).check()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_may_be_none(name: str, value: float) -> None:
    with pytest.raises(CauserieError, match="CAU-5106") as raised:
        replace(CONFIG, **{name: value}).check()
    assert raised.value.where == name


@pytest.mark.parametrize("value", [-2, 10**23])
@pytest.mark.parametrize("name", WHOLE)
def test_no_count_may_be_absurd(name: str, value: int) -> None:
    with pytest.raises(CauserieError, match="CAU-5106") as raised:
        replace(CONFIG, **{name: value}).check()
    assert raised.value.where == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("heldout_fraction", 0.0), ("heldout_fraction", 1.0), ("confidence", 95.0), ("epochs", 0.0), ("canary", 1.1),
        ("canary", -0.5), ("canary_coalition", 0.5), ("batch_size", 0), ("length_factor", 0.5), ("schedule", -1.0),
    ],
)  # fmt: skip
def test_what_lies_outside_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(CauserieError, match="CAU-5106") as raised:
        replace(CONFIG, **{name: value}).check()
    assert (raised.value.where, raised.value.fix[:4]) == (name, "give")


def test_a_round_and_a_schedule_refuse_before_they_touch_anything(tmp_path: Path) -> None:
    for bad in (replace(CONFIG, confidence=2.0), replace(CONFIG, schedule=math.nan)):
        with pytest.raises(CauserieError, match="CAU-5106"):
            keep_improving(bad, tmp_path / "w", sleep=lambda _: pytest.fail("waited"))
    with pytest.raises(CauserieError, match="CAU-5106"):
        improve(replace(CONFIG, min_votes=-1), tmp_path / "w")
