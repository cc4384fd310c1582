"""The invariants of `causerie doctor alignment` hold, and can fail."""

from __future__ import annotations

import pytest
import torch

from causerie.align import checks as module
from causerie.align import run_checks


def test_every_invariant_holds() -> None:
    found = run_checks()
    assert len(found) >= 20
    assert len({check.name for check in found}) == len(found)
    assert [check for check in found if not check.ok] == []


def test_a_wrong_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def summed_twice(*arguments: object, **settings: object) -> torch.Tensor:
        return 2 * module_loss(*arguments, **settings)

    module_loss = module.dpo_loss
    monkeypatch.setattr(module, "dpo_loss", summed_twice)
    broken = {check.name for check in run_checks() if not check.ok}
    assert "DPO sigmoid: ln 2 at the start" in broken


def test_a_leaking_mask_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from causerie.align import shared_rows
    from causerie.model import CausalAttend

    monkeypatch.setattr(shared_rows, "group_attend", lambda shape, segment, positions: CausalAttend(shape, None, None))
    broken = {check.name for check in run_checks() if not check.ok}
    assert "shared prompt: gradient from one completion to the other" in broken
    assert "shared prompt: log-probabilities equal to separate sequences" in broken


def test_checks_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run_checks()
    assert torch.equal(before, torch.get_rng_state())
