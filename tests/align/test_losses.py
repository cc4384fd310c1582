"""The pure losses against closed forms, TRL's published golden values and each other."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import expit

from causerie.align.losses import PairLogProbs, dpo_loss, kto_kl, kto_loss, pair_margin, reward_pair_loss

TOKENS = (torch.tensor([3.0, 5.0, 2.0]), torch.tensor([4.0, 1.0, 2.0]))
POLICY = PairLogProbs(torch.tensor([-3.0, -8.0, -1.0]), torch.tensor([-5.0, -2.0, -1.5]), *TOKENS)
REFERENCE = PairLogProbs(torch.tensor([-4.0, -6.0, -1.0]), torch.tensor([-4.0, -3.0, -1.5]), *TOKENS)
DELTA = [2.0, -3.0, 0.0]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("sigmoid", math.log(2)), ("sigmoid_norm", math.log(2)), ("robust", math.log(2)), ("ipo", 25.0)],
)
def test_start_values_are_those_of_trl(loss: str, expected: float) -> None:
    """alignment.md §3.4: TRL 1.16 at β = 0.1 where policy and reference agree."""
    assert dpo_loss(POLICY, POLICY, loss=loss, beta=0.1).tolist() == pytest.approx([expected] * 3)


def test_margin_by_hand() -> None:
    assert pair_margin(POLICY, REFERENCE).tolist() == pytest.approx(DELTA)
    by_token = [(-3 + 4) / 3 - (-5 + 4) / 4, (-8 + 6) / 5 - (-2 + 3) / 1, 0.0]
    assert pair_margin(POLICY, REFERENCE, per_token=True).tolist() == pytest.approx(by_token)


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
def test_sigmoid_by_scipy(beta: float) -> None:
    expected = [-math.log(expit(beta * delta)) for delta in DELTA]
    assert dpo_loss(POLICY, REFERENCE, beta=beta).tolist() == pytest.approx(expected, rel=1e-5)


def test_robust_by_scipy_and_at_its_ends() -> None:
    expected = [(-0.8 * math.log(expit(0.5 * d)) + 0.2 * math.log(expit(-0.5 * d))) / 0.6 for d in DELTA]
    got = dpo_loss(POLICY, REFERENCE, loss="robust", beta=0.5, noise=0.2)
    assert got.tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(dpo_loss(POLICY, REFERENCE, loss="robust", noise=0.0), dpo_loss(POLICY, REFERENCE))


def test_robust_is_unbiased_under_flipped_labels() -> None:
    def swapped(p: PairLogProbs) -> PairLogProbs:
        return PairLogProbs(p.rejected, p.chosen, p.rejected_tokens, p.chosen_tokens)

    right = dpo_loss(POLICY, REFERENCE, loss="robust", noise=0.3)
    wrong = dpo_loss(swapped(POLICY), swapped(REFERENCE), loss="robust", noise=0.3)
    assert (0.7 * right + 0.3 * wrong).tolist() == pytest.approx(dpo_loss(POLICY, REFERENCE).tolist(), rel=1e-5)


def test_ipo_is_least_at_its_target_margin() -> None:
    one = torch.ones(1)
    at = PairLogProbs(torch.tensor([5.0]), torch.tensor([0.0]), one, one)
    zero = PairLogProbs(torch.zeros(1), torch.zeros(1), one, one)
    assert float(dpo_loss(at, zero, loss="ipo", beta=0.1)) == 0


def test_gradient_of_sigmoid_is_its_closed_form() -> None:
    chosen = POLICY.chosen.clone().requires_grad_()
    dpo_loss(POLICY._replace(chosen=chosen), REFERENCE, beta=0.1).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.1 * expit(-0.1 * d) for d in DELTA], rel=1e-5)


def test_losses_stay_finite_at_extreme_margins() -> None:
    far = PairLogProbs(torch.tensor([-1e5]), torch.tensor([0.0]), torch.ones(1), torch.ones(1))
    zero = PairLogProbs(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.ones(1))
    for loss in ("sigmoid", "sigmoid_norm", "robust", "ipo"):
        assert torch.isfinite(dpo_loss(far, zero, loss=loss)).all(), loss


def test_kto_by_hand() -> None:
    policy, reference = torch.tensor([-2.0, -2.0]), torch.tensor([-5.0, -5.0])
    got = kto_loss(policy, reference, torch.tensor([True, False]), torch.tensor(1.0), beta=0.5, disliked_weight=2.0)
    assert got.tolist() == pytest.approx([1 - expit(0.5 * 2), 2 * (1 - expit(-0.5 * 2))])


def test_kto_start_value_and_directions() -> None:
    same = torch.tensor([-2.0, -7.0], requires_grad=True)
    loss = kto_loss(same, same.detach(), torch.tensor([True, False]), torch.tensor(0.0))
    assert loss.tolist() == [0.5, 0.5]
    loss.sum().backward()
    assert same.grad[0] < 0 < same.grad[1]  # descent makes the liked answer likelier, the disliked one less likely


def test_kl_is_detached_clamped_and_a_mean() -> None:
    policy = torch.tensor([-1.0, -2.0], requires_grad=True)
    assert float(kto_kl(policy, torch.tensor([-2.0, -4.0]))) == 1.5
    assert float(kto_kl(policy, torch.tensor([0.0, 0.0]))) == 0
    assert not kto_kl(policy, torch.zeros(2)).requires_grad


def test_reward_loss_with_and_without_centring() -> None:
    chosen, rejected = torch.tensor([1.0]), torch.tensor([-2.0])
    assert float(reward_pair_loss(chosen, rejected)) == pytest.approx(-math.log(expit(3.0)))
    assert float(reward_pair_loss(chosen, rejected, centring=0.01)) == pytest.approx(-math.log(expit(3.0)) + 0.01)
