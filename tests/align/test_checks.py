"""The invariants of `causerie doctor alignment` hold, and can fail."""

from __future__ import annotations

import pytest
import torch

from causerie.align import checks as module
from causerie.align import run_checks


def test_every_invariant_holds() -> None:
    found = run_checks()
    assert len(found) >= 75
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
    from causerie.model import SequenceAttend

    monkeypatch.setattr(
        shared_rows, "GroupAttend", lambda shape, pieces: SequenceAttend(shape, None, None, causal=True)
    )
    broken = {check.name for check in run_checks() if not check.ok}
    assert "shared prompt: gradient from one completion to the other" in broken
    assert "shared prompt: log-probabilities equal to separate sequences" in broken
    assert "reward: read at the last token, whatever stands beside it" in broken
    assert "engine: log-probabilities equal the trainer's" in broken


def test_a_wrong_clip_and_a_wrong_advantage_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from causerie.align import checks_policy

    def biased(deviation: torch.Tensor, *, scale: bool = True, eps: float = 1e-4) -> torch.Tensor:
        return deviation - deviation.min(1, keepdim=True).values

    monkeypatch.setattr(checks_policy, "group_advantages", biased)
    monkeypatch.setattr(checks_policy, "kl_estimate", lambda policy, reference, kind="k3": policy - reference - 1)
    broken = {check.name for check in run_checks() if not check.ok}
    assert {"GRPO: advantages of a group sum to 0", "KL k3: never negative"} <= broken


def test_trls_published_values_are_met() -> None:
    """Step-0 losses that TRL 1.16 printed on a tiny random model, and its own recorded DPO snapshot."""
    found = {check.name: check.got for check in run_checks()}
    assert found["DPO sigmoid: ln 2 at the start"] == pytest.approx(0.6931471824645996, abs=5e-7)
    assert found["DPO sigmoid_norm: ln 2 at the start"] == pytest.approx(0.693147, abs=1e-6)
    assert found["DPO robust: ln 2 at the start"] == pytest.approx(0.693147, abs=1e-6)
    assert found["DPO ipo: 1/(4β²) at the start"] == pytest.approx(25, abs=1e-4)
    assert found["KTO: 0.5 at the start"] == pytest.approx(0.5, abs=1e-6)
    assert found["reward: ln 2 for a zero head"] == pytest.approx(0.693147, abs=1e-6)
    assert found["GRPO: 4 of 8 right gives ±√(7/8)"] == pytest.approx(0.935, abs=1e-3)


def test_checks_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run_checks()
    assert torch.equal(before, torch.get_rng_state())
