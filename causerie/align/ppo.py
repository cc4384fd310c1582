"""Proximal policy optimisation, free of text: advantages, one clipped loss, and a compact update over any observations.

GRPO uses the advantages and the loss on tokens; games use `ppo_update` on whatever they observe. Actions are flat:
`(N,)` of them, each belonging to one of S sequences (an answer, an episode) by `owner` `(N,)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

AdvantageKind = Literal["gae", "group", "rloo"]
Aggregation = Literal["grpo", "dr_grpo", "dapo"]
KlEstimator = Literal["k1", "k2", "k3"]


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float = 1.0, smoothing: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438) over episodes that end at their mask.

    Aₜ = Σₗ (γλ)ˡ δₜ₊ₗ with δₜ = rₜ + γ Vₜ₊₁ − Vₜ and V = 0 after the end. With λ = 1 and V = 0 it is the return-to-go.

    Args:
        rewards, values: (S, T) float32.
        mask: (S, T) bool, true for the steps of each episode, which begin at column 0.
        discount: γ. smoothing: λ.

    Returns:
        Advantages and returns (advantage + value), (S, T), zero outside the mask.
    """
    keep = mask.float()
    advantages = torch.zeros_like(rewards)
    later, next_value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for step in reversed(range(rewards.shape[1])):
        delta = rewards[:, step] + discount * next_value - values[:, step]
        later = (delta + discount * smoothing * later) * keep[:, step]
        advantages[:, step] = later
        next_value = values[:, step] * keep[:, step]
    return advantages, (advantages + values) * keep


def group_advantages(rewards: Tensor, *, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """Reward minus the group's mean, over the group's unbiased deviation plus `eps` if `scale`; (n, G) → (n, G).

    GRPO and DAPO scale (DeepSeekMath, arXiv:2402.03300, section 4.1), Dr. GRPO does not (arXiv:2503.20783). Each row
    sums to 0 and does not depend on a constant added to its rewards; a row of equal rewards gives exact zeros.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    centred = torch.where((rewards == rewards[:, :1]).all(1, keepdim=True), torch.zeros_like(centred), centred)
    return centred / (rewards.std(1, keepdim=True) + eps) if scale else centred


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Reward minus the mean of the *other* samples of the group, (n, G) → (n, G) (RLOO, arXiv:2402.14740)."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def sample_advantages(rewards: Tensor, kind: AdvantageKind, *, scale: bool = True) -> Tensor:
    """One advantage per sample of a group, (n, G) → (n, G); "gae" needs values and is `gae`'s work.

    Raises:
        ValueError: for "gae".
    """
    if kind == "group":
        return group_advantages(rewards, scale=scale)
    if kind == "rloo":
        return rloo_advantages(rewards)
    raise ValueError("advantages of a group are 'group' or 'rloo'; 'gae' works step by step: call gae()")


class Clipped(NamedTuple):
    """The clipped loss of N actions, and what to watch."""

    loss: Tensor
    """(N,) with gradient: −min(ρA, clip(ρ)A)."""
    ratio: Tensor
    """(N,) ρ = π/π_old, detached."""
    clipped: Tensor
    """(N,) bool: the clip took the gradient away."""


def clipped_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> Clipped:
    """PPO's clipped surrogate, one value per action (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    With `clip_high` above `clip_low` it is DAPO's clip-higher (arXiv:2503.14476). Where old and new agree the ratio is
    1, nothing is clipped and the gradient is that of −A · log π.

    Args:
        log_probs, old_log_probs, advantages: (N,); only the first carries gradient.
    """
    ratio = (log_probs - old_log_probs.detach()).exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages, bounded * advantages)
    clipped = ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & (advantages < 0))
    return Clipped(loss, ratio.detach(), clipped.detach())


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float = 0.2) -> Tensor:
    """Half the squared error of the critic, the larger of the plain one and the one with a bounded step; (N,)."""
    bounded = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (bounded - returns) ** 2)


def kl_estimate(log_probs: Tensor, reference: Tensor, kind: KlEstimator = "k3") -> Tensor:
    """Per action, an estimate of KL(π‖π_ref) at actions drawn from π (Schulman, "Approximating KL divergence").

    With d = log π_ref − log π: k1 = −d (unbiased, of any sign), k2 = d²/2 (biased, ≥ 0), k3 = eᵈ − 1 − d (unbiased,
    ≥ 0). All are 0 where the policies agree. As loss terms their gradients differ: that of k3 is GRPO's.
    """
    difference = reference - log_probs
    if kind == "k1":
        return -difference
    return difference**2 / 2 if kind == "k2" else torch.expm1(difference) - difference


def action_weights(owner: Tensor, lengths: Tensor, kind: Aggregation, longest: int) -> tuple[Tensor, Tensor]:
    """Weight of each action and number of units, so that a loss is Σ weight · lossᵢ / units; additive over batches.

    - grpo: mean over the actions of a sequence, then over sequences (arXiv:2402.03300): 1/lengthᵢ, S units.
    - dr_grpo: sum over actions by a constant, the longest possible sequence (arXiv:2503.20783): 1/longest, S units.
    - dapo: mean over all actions (arXiv:2503.14476): 1, N units.

    Args:
        owner: (N,) sequence of each action. lengths: (S,) actions of each sequence, above 0.
        longest: Dr. GRPO's constant.

    Returns:
        (N,) float32, and a scalar tensor.
    """
    sequences = torch.tensor(float(lengths.shape[0]), device=lengths.device)
    if kind == "grpo":
        return (1.0 / lengths.float())[owner], sequences
    if kind == "dr_grpo":
        return torch.full((owner.shape[0],), 1.0 / longest, device=owner.device), sequences
    return torch.ones(owner.shape[0], device=owner.device), lengths.float().sum()


class Judged(NamedTuple):
    """What an actor-critic says of N steps: log π(a|o), V(o) and the policy's entropy, each (N,)."""

    log_probs: Tensor
    values: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Steps:
    """N steps of experience; `observations` is anything that a list of row numbers can choose from."""

    log_probs: Tensor
    """(N,) of the policy that acted."""
    values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class PpoSettings:
    """The update of arXiv:1707.06347 with the usual details: several passes, minibatches, clipped value loss."""

    epochs: int = 4
    minibatch: int = 256
    clip_low: float = 0.2
    clip_high: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    whiten: bool = True
    """Advantages of a minibatch get mean 0 and deviation 1."""
    grad_clip: float = 0.5
    largest_kl: float | None = None
    """Stop the passes when the mean KL estimate (k3) of a minibatch exceeds this."""


def ppo_update(
    judge: Callable[[Tensor], Judged],
    steps: Steps,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    settings: PpoSettings,
    generator: torch.Generator,
) -> dict[str, float]:
    """Improve a policy on one batch of experience.

    Args:
        judge: row numbers (n,) → what the current policy says of those steps; differentiable.
        steps: the experience.
        parameters: what the optimiser trains.
        optimizer: its owner keeps it between updates.
        settings: see `PpoSettings`.
        generator: orders the minibatches.

    Returns:
        Means over all minibatches: policy_loss, value_loss, entropy, kl (k3), clip_fraction; `first_ratio_gap`, the
        largest |ratio − 1| of the first minibatch (0 up to rounding, or `judge` is not the policy that acted); passes.
    """
    totals: dict[str, float] = {}
    count, first_gap, stopped, passes = 0, 0.0, False, 0
    size = steps.log_probs.shape[0]
    for _ in range(settings.epochs):
        if stopped:
            break
        passes += 1
        for rows in torch.randperm(size, generator=generator).split(settings.minibatch):
            figures, gap = _minibatch(judge, steps, rows, parameters, optimizer, settings)
            first_gap = gap if count == 0 else first_gap
            count += 1
            for name, value in figures.items():
                totals[name] = totals.get(name, 0.0) + value
            if settings.largest_kl is not None and figures["kl"] > settings.largest_kl:
                stopped = True
                break
    means = {name: value / max(count, 1) for name, value in totals.items()}
    return {**means, "first_ratio_gap": first_gap, "passes": float(passes)}


def _minibatch(
    judge: Callable[[Tensor], Judged],
    steps: Steps,
    rows: Tensor,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    settings: PpoSettings,
) -> tuple[dict[str, float], float]:
    now, old = judge(rows), steps.log_probs[rows]
    advantages = steps.advantages[rows]
    if settings.whiten and len(rows) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy = clipped_loss(now.log_probs, old, advantages, clip_low=settings.clip_low, clip_high=settings.clip_high)
    value = clipped_value_loss(now.values, steps.values[rows], steps.returns[rows], clip=settings.clip_high)
    loss = policy.loss.mean() + settings.value_weight * value.mean() - settings.entropy_weight * now.entropy.mean()
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
    optimizer.step()
    figures = {
        "policy_loss": float(policy.loss.detach().mean()),
        "value_loss": float(value.detach().mean()),
        "entropy": float(now.entropy.detach().mean()),
        "kl": float(kl_estimate(old, now.log_probs.detach(), "k3").mean()),
        "clip_fraction": float(policy.clipped.float().mean()),
    }
    return figures, float((policy.ratio - 1).abs().max())
