"""Advantages, the clipped loss, aggregation and a PPO update on things that are not text."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from causerie.align import (
    Judged,
    PpoSettings,
    Steps,
    action_weights,
    clipped_loss,
    clipped_value_loss,
    gae,
    group_advantages,
    kl_estimate,
    ppo_update,
    rloo_advantages,
)
from causerie.align.ppo import sample_advantages


def test_gae_equals_the_sum_of_its_definition() -> None:
    """A = Σ (γλ)^l δ, written out as the double sum."""
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn((3, 6), generator=generator), torch.randn((3, 6), generator=generator)
    lengths, discount, smoothing = [6, 4, 1], 0.97, 0.9
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    advantages, returns = gae(rewards, values, mask, discount=discount, smoothing=smoothing)
    for row, length in enumerate(lengths):
        ahead = [*values[row, 1:length].tolist(), 0.0]
        delta = [float(rewards[row, t]) + discount * ahead[t] - float(values[row, t]) for t in range(length)]
        for t in range(length):
            wanted = sum((discount * smoothing) ** (k - t) * delta[k] for k in range(t, length))
            assert float(advantages[row, t]) == pytest.approx(wanted, abs=1e-5)
            assert float(returns[row, t]) == pytest.approx(wanted + float(values[row, t]), abs=1e-5)
        assert not advantages[row, length:].any()


def test_group_advantages_have_trls_value_for_half_right() -> None:
    advantages = group_advantages(torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0]]))
    assert advantages.abs().tolist()[0] == pytest.approx([0.9352] * 8, abs=1e-4)  # std n−1 and 1e-4, as TRL
    assert torch.equal(group_advantages(torch.full((2, 5), 0.3)), torch.zeros(2, 5))


def test_rows_of_a_group_do_not_see_each_other() -> None:
    rewards = torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, -1.0]])
    for kind in ("group", "rloo"):
        both = sample_advantages(rewards, kind)  # type: ignore[arg-type]
        assert torch.allclose(both[:1], sample_advantages(rewards[:1], kind))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gae"):
        sample_advantages(rewards, "gae")


def test_rloo_is_the_reward_minus_the_mean_of_the_others() -> None:
    assert rloo_advantages(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[-3.0, -1.5, 4.5]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "high", "expected", "gradient"),
    [
        (1.1, 1.0, 0.2, -1.1, True),
        (1.25, 1.0, 0.2, -1.2, False),
        (1.25, 1.0, 0.28, -1.25, True),
        (0.7, 1.0, 0.2, -0.7, True),
        (0.7, -1.0, 0.2, 0.8, False),
        (1.5, -1.0, 0.2, 1.5, True),
    ],
)
def test_clipped_loss_by_hand(ratio: float, advantage: float, high: float, expected: float, gradient: bool) -> None:
    log_probs = torch.tensor([math.log(ratio)], requires_grad=True)
    found = clipped_loss(log_probs, torch.zeros(1), torch.tensor([advantage]), clip_high=high)
    found.loss.sum().backward()
    assert float(found.loss.detach()) == pytest.approx(expected, abs=1e-6)
    assert bool(log_probs.grad.any()) is gradient  # type: ignore[union-attr]
    assert bool(found.clipped) is not gradient


def test_value_loss_takes_the_larger_error() -> None:
    values, old, returns = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    assert clipped_value_loss(values, old, returns).tolist() == pytest.approx([0.5 * 0.8**2, 0.5 * 0.9**2])


def test_kl_estimators_agree_with_torch_on_samples() -> None:
    """k1 and k3 are unbiased: within four standard errors of torch's exact divergence."""
    policy = torch.distributions.Categorical(logits=torch.tensor([0.1, 1.0, -0.5, 0.3]))
    reference = torch.distributions.Categorical(logits=torch.tensor([0.6, 0.2, 0.1, 0.0]))
    torch.manual_seed(0)
    actions = policy.sample((20_000,))
    exact = float(torch.distributions.kl_divergence(policy, reference))
    for kind in ("k1", "k3"):
        drawn = kl_estimate(policy.log_prob(actions), reference.log_prob(actions), kind)  # type: ignore[arg-type]
        assert float(drawn.mean()) == pytest.approx(exact, abs=4 * float(drawn.std()) / math.sqrt(20_000))


def test_aggregations_by_hand() -> None:
    """Two sequences of 1 and 3 actions with losses 4 and (1, 2, 3)."""
    owner, lengths, losses = torch.tensor([0, 1, 1, 1]), torch.tensor([1, 3]), torch.tensor([4.0, 1.0, 2.0, 3.0])
    found = {}
    for kind in ("grpo", "dr_grpo", "dapo"):
        weights, units = action_weights(owner, lengths, kind, 5)  # type: ignore[arg-type]
        found[kind] = float((weights * losses).sum() / units)
    assert found == pytest.approx({"grpo": (4 + 2) / 2, "dr_grpo": 10 / 5 / 2, "dapo": 10 / 4})


class Corridor(nn.Module):
    """Actor and critic of a corridor of five cells: left or right, a reward at the right end."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.value = nn.Embedding(5, 2), nn.Embedding(5, 1)
        nn.init.zeros_(self.policy.weight)
        nn.init.zeros_(self.value.weight)

    def judge(self, cells: Tensor, actions: Tensor) -> Judged:
        made = torch.distributions.Categorical(logits=self.policy(cells))
        return Judged(made.log_prob(actions), self.value(cells)[:, 0], made.entropy())


def play(model: Corridor, episodes: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells, actions, rewards and mask of episodes of at most 12 steps, each (S, T)."""
    cells, actions = torch.zeros((episodes, 12), dtype=torch.long), torch.zeros((episodes, 12), dtype=torch.long)
    rewards, mask = torch.zeros((episodes, 12)), torch.zeros((episodes, 12), dtype=torch.bool)
    for episode in range(episodes):
        cell = 0
        for step in range(12):
            right = torch.softmax(model.policy.weight[cell].detach(), 0)[1]
            action = int(torch.rand((), generator=generator) < right)
            cells[episode, step], actions[episode, step], mask[episode, step] = cell, action, True
            cell = max(0, cell + (1 if action else -1))
            if cell == 4:
                rewards[episode, step] = 1.0
                break
            rewards[episode, step] = -0.02
    return cells, actions, rewards, mask


def test_ppo_learns_a_corridor_with_gae() -> None:
    """Nothing in the update knows of text: an actor-critic learns to walk to the end."""
    model, generator = Corridor(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    figures: dict[str, float] = {}
    for _ in range(12):
        cells, actions, rewards, mask = play(model, 24, generator)
        with torch.no_grad():
            now = model.judge(cells[mask], actions[mask])
            values = torch.zeros(mask.shape).masked_scatter(mask, now.values)
        advantages, returns = gae(rewards, values, mask, discount=0.99)
        steps = Steps(now.log_probs, now.values, advantages[mask], returns[mask])
        seen, done = cells[mask], actions[mask]
        figures = ppo_update(
            lambda rows, seen=seen, done=done: model.judge(seen[rows], done[rows]),
            steps,
            list(model.parameters()),
            optimizer,
            PpoSettings(minibatch=64),
            generator,
        )
        assert figures["first_ratio_gap"] == pytest.approx(0, abs=1e-6)
    assert float(torch.softmax(model.policy.weight[0].detach(), 0)[1]) > 0.9
    assert figures["passes"] == 4


def test_ppo_stops_its_passes_at_the_largest_kl() -> None:
    model, generator = Corridor(), torch.Generator().manual_seed(0)
    cells, actions = torch.zeros(64, dtype=torch.long), torch.ones(64, dtype=torch.long)
    with torch.no_grad():
        now = model.judge(cells, actions)
    steps = Steps(now.log_probs, now.values, torch.ones(64), torch.ones(64))
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    settings = PpoSettings(epochs=9, minibatch=64, whiten=False, largest_kl=0.01)
    figures = ppo_update(
        lambda rows: model.judge(cells[rows], actions[rows]), steps, list(model.parameters()), optimizer, settings,
        generator,
    )  # fmt: skip
    assert figures["passes"] == 2  # the second pass sees the moved policy and ends it
    assert figures["kl"] > 0
