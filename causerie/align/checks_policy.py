"""Closed-form invariants of policy gradients: advantages, the clipped loss, aggregation, KL estimates, a bandit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Final

import torch
from torch import Tensor

from causerie.align.config import GrpoConfig
from causerie.align.ppo import (
    Aggregation,
    action_weights,
    clipped_loss,
    gae,
    group_advantages,
    kl_estimate,
    rloo_advantages,
)
from causerie.align.shared_rows import Group, completion_token_log_probs, layout
from causerie.align.specimens import Found, mean, tiny_groups, tiny_model
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import Transformer


def advantages() -> Iterator[Found]:
    """Groups, leave-one-out and GAE."""
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.2], [3.0, 3.0, 1.0, -1.0]])
    scaled, plain = group_advantages(rewards), group_advantages(rewards, scale=False)
    yield "GRPO: advantages of a group sum to 0", 0.0, mean(scaled.sum(1).abs())
    yield "GRPO: equal rewards give advantage 0", 0.0, mean(group_advantages(torch.full((1, 8), 0.1)).abs())
    half = group_advantages(torch.tensor([[1.0] * 4 + [0.0] * 4]), eps=0.0)
    yield "GRPO: 4 of 8 right gives ±√(7/8)", (7 / 8) ** 0.5, mean(half.abs())
    yield "GRPO: advantages do not see a constant", 0.0, mean((group_advantages(rewards + 5) - scaled).abs())
    rescaled = group_advantages(rewards * 7, eps=0.0) - group_advantages(rewards, eps=0.0)
    yield "GRPO: with deviation, advantages do not see a factor", 0.0, mean(rescaled.abs())
    yield "Dr. GRPO: without deviation, a factor stays", 7.0, mean(group_advantages(rewards * 7, scale=False) / plain)
    one_out = rloo_advantages(rewards)
    yield "RLOO: advantages sum to 0", 0.0, mean(one_out.sum(1).abs())
    yield "RLOO: advantages do not see a constant", 0.0, mean((rloo_advantages(rewards + 5) - one_out).abs())
    yield "RLOO: the group's centred reward times G/(G−1)", 4 / 3, mean(one_out / plain)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    found, returns = gae(rewards, torch.zeros(2, 4), mask, smoothing=1.0)
    to_go = torch.stack([rewards[0].flip(0).cumsum(0).flip(0), torch.tensor([6.0, 3.0, 0.0, 0.0])])
    yield "GAE: λ = 1 and V = 0 is the return-to-go", 0.0, mean((found - to_go).abs())
    yield "GAE: nothing outside the mask", 0.0, mean(returns[~mask].abs())
    values = torch.tensor([[0.3, -0.2, 0.9, 0.1], [1.0, 2.0, 9.0, 9.0]])
    one_step, _ = gae(rewards, values, mask, discount=0.9, smoothing=0.0)
    later = torch.tensor([[-0.2, 0.9, 0.1, 0.0], [2.0, 0.0, 0.0, 0.0]])
    delta = (rewards + 0.9 * later - values) * mask
    yield "GAE: λ = 0 is the one-step error", 0.0, mean((one_step - delta).abs())


def clipping() -> Iterator[Found]:
    """The loss where policies agree, and beyond the clip."""
    log_probs, advantage = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([1.0, -2.0, 0.5])
    same = clipped_loss(log_probs.requires_grad_(), log_probs.detach(), advantage)
    yield "PPO: first ratio is 1", 0.0, mean((same.ratio - 1).abs())
    yield "PPO: first clip fraction is 0", 0.0, mean(same.clipped.float())
    (gradient,) = torch.autograd.grad(same.loss.sum(), log_probs)
    yield "PPO: first gradient is −A", 0.0, mean((gradient + advantage).abs())
    moved = torch.tensor([1.25, 1.25, 0.75, 0.75]).log().requires_grad_()
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])
    for high, expected in ((0.2, 2.0), (0.28, 1.0)):
        clipped = clipped_loss(moved, torch.zeros(4), sign, clip_high=high)
        yield f"PPO: clipped actions with clip_high {high}", expected, float(clipped.clipped.sum())
        (gradient,) = torch.autograd.grad(clipped.loss.sum(), moved)
        yield f"PPO: gradient of clipped actions with clip_high {high}", 0.0, mean(gradient[clipped.clipped].abs())


def divergences() -> Iterator[Found]:
    """KL estimators against the exact divergence of two distributions over four actions."""
    policy = torch.log_softmax(torch.tensor([0.3, -1.0, 2.0, 0.1]), 0)
    reference = torch.log_softmax(torch.tensor([0.0, 0.5, 1.0, -0.4]), 0)
    exact = float((policy.exp() * (policy - reference)).sum())
    for kind in ("k1", "k2", "k3"):
        yield f"KL {kind}: 0 where the policies agree", 0.0, mean(kl_estimate(policy, policy, kind).abs())
    for kind in ("k1", "k3"):
        expected = (policy.exp() * kl_estimate(policy, reference, kind)).sum()  # type: ignore[arg-type]
        yield f"KL {kind}: its expectation is the divergence", exact, float(expected)
    yield "KL k3: never negative", 0.0, float(kl_estimate(policy, reference).clamp(max=0).abs().sum())
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], requires_grad=True)
    now = torch.log_softmax(logits, 0)
    (gradient,) = torch.autograd.grad((now.exp().detach() * kl_estimate(now, reference)).sum(), logits)
    closer = torch.log_softmax(logits.detach() - 0.1 * gradient, 0)
    after = float((closer.exp() * (closer - reference)).sum())
    yield "KL k3: a step down its gradient comes closer to the reference", 1.0, float(after < exact)


def aggregation() -> Iterator[Found]:
    """How token losses become one number."""
    lengths, advantage = torch.tensor([2, 5, 3]), torch.tensor([1.0, -0.25, -0.75])
    owner = torch.arange(3).repeat_interleave(lengths)
    tokens = -advantage[owner]
    closed = {"grpo": 0.0, "dapo": -float((advantage * lengths).sum()) / 10, "dr_grpo": -1 * (2 - 1.25 - 2.25) / 24}
    kinds: tuple[Aggregation, ...] = ("grpo", "dapo", "dr_grpo")
    for kind in kinds:
        weights, units = action_weights(owner, lengths, kind, 8)
        yield f"{kind}: value of the first loss", closed[kind], float((weights * tokens).sum() / units)
    first, second = owner < 1, owner >= 1
    for kind in kinds:
        whole, units = action_weights(owner, lengths, kind, 8)
        one, one_units = action_weights(owner[first], lengths[:1], kind, 8)
        two, two_units = action_weights(owner[second] - 1, lengths[1:], kind, 8)
        parts = ((one * tokens[first]).sum() + (two * tokens[second]).sum()) / (one_units + two_units)
        yield f"{kind}: two micro-batches equal one", float((whole * tokens).sum() / units), float(parts)


def bandit() -> Iterator[Found]:
    """Expected gradients on four actions, enumerated exactly, against that of the expected reward."""
    logits, reward = torch.tensor([0.2, -0.4, 0.9, 0.0], requires_grad=True), torch.tensor([1.0, 0.0, 0.3, -0.5])
    (exact,) = torch.autograd.grad((torch.softmax(logits, 0) * reward).sum(), logits)
    for name, size in (("RLOO", 2), ("RLOO", 3)):
        loss = torch.zeros(())
        for actions in product(range(4), repeat=size):
            log_probs = torch.log_softmax(logits, 0)[list(actions)]
            advantage = rloo_advantages(reward[list(actions)][None])[0]
            chance = log_probs.detach().sum().exp()
            loss = loss + chance * clipped_loss(log_probs, log_probs.detach(), advantage).loss.mean()
        (gradient,) = torch.autograd.grad(loss, logits)
        yield (
            f"bandit: expected {name} gradient of {size} samples is the exact one",
            0.0,
            mean((gradient + exact).abs()),
        )
    parameter = logits.detach().clone().requires_grad_()
    for _ in range(400):
        probs = torch.softmax(parameter, 0)
        advantage = (reward - (probs.detach() * reward).sum()).detach()
        taken = clipped_loss(probs.log(), probs.log().detach(), advantage)
        (gradient,) = torch.autograd.grad((probs.detach() * taken.loss).sum(), parameter)
        parameter = (parameter.detach() - 5.0 * gradient).requires_grad_()
    yield "bandit: the best action is found", 1.0, float(torch.softmax(parameter, 0)[0] > 0.99)


def rollouts() -> Iterator[Found]:
    """The engine that samples against the trainer, and updates without a signal."""
    model = tiny_model(1)
    engine = Engine(model, EngineConfig(cache_mb=4))
    prompts = [list(group.prompt) for group in tiny_groups()]
    sampling = [Sampling(max_tokens=9, seed=seed, logprobs=True) for seed in range(len(prompts))]
    found = generate_batch(engine, prompts, sampling)
    batch = layout([Group(prompt, (item.ids,)) for prompt, item in zip(prompts, found, strict=True)])
    trained = completion_token_log_probs(model, batch).detach()
    sampled = torch.tensor([value for item in found for value in item.logprobs])
    yield "engine: log-probabilities equal the trainer's", 0.0, float((trained - sampled).abs().max())
    warm = completion_token_log_probs(model, batch, 0.7).detach()
    own = torch.cat(
        [_at_temperature(model, prompt, item.ids, 0.7) for prompt, item in zip(prompts, found, strict=True)]
    )
    yield "temperature: log-probabilities are those of softmax(logits / T)", 0.0, float((warm - own).abs().max())
    for variant in ("grpo", "dr_grpo", "dapo"):
        yield f"{variant}: no gradient from constant rewards", 0.0, _constant_reward(model, variant)


def _at_temperature(model: Transformer, prompt: Sequence[int], ids: Sequence[int], temperature: float) -> Tensor:
    hidden = model(torch.tensor([[*prompt, *ids]]))[0, len(prompt) - 1 : -1]
    scores = torch.log_softmax(model.logits(hidden).detach() / temperature, -1)
    return scores[torch.arange(len(ids)), torch.tensor(ids)]


def _constant_reward(model: Transformer, variant: str) -> float:
    """Gradient norm of the objective on a rollout whose rewards are all equal."""
    from pathlib import Path

    from causerie.align.objective_grpo import grpo_objective
    from causerie.align.rollouts import Prompt, Rollout, rollout_batches

    groups = tiny_groups()
    config = GrpoConfig(model=Path(), prompts=Path(), group_size=2, variant=variant)  # type: ignore[arg-type]
    answers = [[list(c) for c in group.completions] for group in groups]
    silent = [[[-1.0] * len(c) for c in group] for group in answers]
    rollout = Rollout(0, [0, 1, 2, 3], answers, silent, [[False, False]] * 4, [[0.3, 0.3]] * 4)
    prompts = [Prompt(tuple(group.prompt), {}) for group in groups]
    model.zero_grad(set_to_none=True)
    for batch in rollout_batches(rollout, prompts, config):
        torch.autograd.backward(grpo_objective(config)(model, batch).loss_sum)
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return float(torch.stack(norms).norm())


FAMILIES: Final[Sequence[Callable[[], Iterator[Found]]]] = (
    advantages,
    clipping,
    divergences,
    aggregation,
    bandit,
    rollouts,
)
"""Groups of checks, in the order in which they run."""
