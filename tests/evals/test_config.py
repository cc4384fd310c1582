"""Numbers of an evaluation that cannot be are refused by name before any model is looked for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from causerie.core import CauserieError
from causerie.evals import EvalConfig, evaluate

CONFIG = EvalConfig(model=Path("nowhere"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("confidence", value) for value in (math.nan, math.inf, 0.0, 1.0, 95.0, -0.1)],
        *[("temperature", value) for value in (math.nan, math.inf, -0.1, 1e23)],
        ("seed", -1), ("seed", 2**63), ("limit", -1), ("max_length", 1), ("max_tokens", 0), ("batch_tokens", 0),
        ("batch_tokens", 10**23),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_named(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(CauserieError, match="CAU-4210") as raised:
        evaluate(replace(CONFIG, **{name: value}), tmp_path)
    assert raised.value.where == name
    assert raised.value.fix.startswith("give a number")
    assert not list(tmp_path.iterdir())


def test_the_defaults_pass() -> None:
    CONFIG.check()
