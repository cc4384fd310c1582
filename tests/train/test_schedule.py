"""Learning-rate schedules against torch's own, and what all of them promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causerie.train.schedule import lr_factor
from tests.train.tiny import settings

STEPS = 40


def factors(**changes: object) -> list[float]:
    """The factor of every update of a run of forty."""
    wanted = settings(steps=STEPS, **changes)
    return [lr_factor(wanted, step, step / STEPS) for step in range(STEPS + 1)]


def torchs(make: object) -> list[float]:
    """What a scheduler of torch makes of a rate of 1, update by update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(STEPS + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("final", [0.0, 0.05, 1.0])
def test_cosine_is_torchs(final: float) -> None:
    expected = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=final))
    assert factors(schedule="cosine", warmup=0, final_lr=final) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("final", [0.0, 0.05, 1.0])
def test_linear_is_torchs(final: float) -> None:
    expected = torchs(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, final, STEPS)) if final else None
    found = factors(schedule="linear", warmup=0, final_lr=final)
    assert found == pytest.approx(expected or [1 - step / STEPS for step in range(STEPS + 1)], abs=1e-9)


def test_wsd_is_flat_then_linear() -> None:
    found = factors(schedule="wsd", warmup=0, decay_fraction=0.25, final_lr=0.1)
    assert found[:31] == [1.0] * 31
    assert found[30:] == pytest.approx([1 - 0.9 * i / 10 for i in range(11)])
    assert factors(schedule="wsd", warmup=0, decay_fraction=0.0) == [1.0] * (STEPS + 1)
    assert factors(schedule="wsd", warmup=0, decay_fraction=1.0) == factors(schedule="linear", warmup=0)


def test_the_warm_up_takes_a_tenth_of_the_run_at_most() -> None:
    assert factors(schedule="wsd", decay_fraction=0.0, warmup=20)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    open_end = settings(steps=None, minutes=1.0, warmup=20, decay_fraction=0.0)
    assert [lr_factor(open_end, step, 0.0) for step in (0, 9, 19, 20)] == [0.05, 0.5, 1.0, 1.0]


@given(
    schedule=st.sampled_from(["wsd", "cosine", "linear"]), warmup=st.integers(0, 50), step=st.integers(0, 1000),
    progress=st.floats(-0.5, 1.5), final=st.floats(0.001, 1.0), decay=st.floats(0.0, 1.0),
)  # fmt: skip
def test_every_schedule_stays_between_its_end_and_its_peak(
    schedule: str, warmup: int, step: int, progress: float, final: float, decay: float
) -> None:
    """Also beyond its limits, where a run by the clock may land; and it never rises once it is warm."""
    wanted = settings(steps=1000, schedule=schedule, warmup=warmup, final_lr=final, decay_fraction=decay)
    now = lr_factor(wanted, step, progress)
    assert 0 < now <= 1 + 1e-12
    if step >= warmup:
        assert now >= final - 1e-9
        assert lr_factor(wanted, step + 1, progress + 0.01) <= now + 1e-9
