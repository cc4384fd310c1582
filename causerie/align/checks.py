"""Closed-form invariants of alignment, checked on a tiny random model: `causerie doctor alignment`.

Every check compares a number that theory gives with the number that the code used in training computes. They run in a
few seconds on one core and in the test suite. Those of policy gradients are in `checks_policy`, those of masks, packing
and texts in `checks_text`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from causerie.align.checks_policy import FAMILIES as POLICY_FAMILIES
from causerie.align.checks_text import FAMILIES as TEXT_FAMILIES
from causerie.align.losses import (
    PairLogProbs,
    dpo_loss,
    kto_kl,
    kto_loss,
    pair_margin,
    reward_pair_loss,
    reward_ranking_loss,
)
from causerie.align.reward_model import add_score, rewards
from causerie.align.scoring import score_groups
from causerie.align.shared_rows import Group, completion_log_probs, layout
from causerie.align.specimens import (
    BETA,
    Found,
    alone,
    completion_tokens,
    grad_norm,
    leak,
    mean,
    pair_log_probs,
    swap,
    tiny_groups,
    tiny_model,
)
from causerie.model import add_lora, merge_lora

TOLERANCE: Final = 1e-5


@dataclass(frozen=True)
class Check:
    """One invariant: what theory says, what the code computes, and whether they agree."""

    name: str
    expected: float
    got: float
    ok: bool


def run_checks() -> list[Check]:
    """All checks, in order. Deterministic; leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            Check(name, expected, got, math.isfinite(got) and abs(got - expected) <= TOLERANCE * max(1, abs(expected)))
            for family in FAMILIES
            for name, expected, got in family()
        ]


def start_values() -> Iterator[Found]:
    """Losses where policy and reference agree."""
    same, groups = tiny_model(), tiny_groups()
    pairs = pair_log_probs(same, groups)
    fixed = pair_log_probs(same, groups, grad=False)
    for loss, expected in (("sigmoid", math.log(2)), ("sigmoid_norm", math.log(2)), ("robust", math.log(2))):
        yield f"DPO {loss}: ln 2 at the start", expected, mean(dpo_loss(pairs, fixed, loss=loss, beta=BETA))  # type: ignore[arg-type]
    yield "DPO ipo: 1/(4β²) at the start", 1 / (4 * BETA**2), mean(dpo_loss(pairs, fixed, loss="ipo", beta=BETA))
    yield "DPO margin: 0 at the start", 0.0, mean(pair_margin(pairs, fixed).abs())
    liked = torch.tensor([True, False, True, False])
    kl = kto_kl(pairs.chosen, fixed.chosen)
    yield "KTO: 0.5 at the start", 0.5, mean(kto_loss(pairs.chosen, fixed.chosen, liked, kl, beta=BETA))
    zero = torch.zeros(4)
    yield "reward: ln 2 for a zero head", math.log(2), mean(reward_pair_loss(zero, zero))


def symmetries() -> Iterator[Found]:
    """What swapping, shifting and repeating must do."""
    policy, fixed = pair_log_probs(tiny_model(1), tiny_groups()), pair_log_probs(tiny_model(), tiny_groups())
    swapped = pair_margin(swap(policy), swap(fixed))
    yield "DPO margin: negated when sides are swapped", 0.0, mean((pair_margin(policy, fixed) + swapped).abs())
    scaled = BETA * pair_margin(policy, fixed)
    both = dpo_loss(policy, fixed, beta=BETA) - dpo_loss(swap(policy), swap(fixed), beta=BETA)
    yield "DPO loss: differs by −βΔ when sides are swapped", 0.0, mean((both + scaled).abs())
    twice = PairLogProbs(*(2 * value for value in policy))
    ratio = mean(twice.difference) / mean(policy.difference)
    yield "sum of log-probabilities: doubles with the completion", 2.0, ratio
    per_token = mean(twice.per_token().difference - policy.per_token().difference)
    yield "log-probability per token: unchanged by doubling", 0.0, per_token
    noisy = 0.9 * dpo_loss(policy, fixed, loss="robust", beta=BETA, noise=0.1)
    noisy = noisy + 0.1 * dpo_loss(swap(policy), swap(fixed), loss="robust", beta=BETA, noise=0.1)
    clean = dpo_loss(policy, fixed, beta=BETA)
    yield "DPO robust: mean over flipped labels is the clean loss", mean(clean), mean(noisy)
    shifted = reward_pair_loss(policy.chosen + 7, policy.rejected + 7) - reward_pair_loss(
        policy.chosen, policy.rejected
    )
    yield "reward: unchanged by a constant on all rewards", 0.0, mean(shifted.abs())


def kto_term() -> Iterator[Found]:
    """KTO's reference point: detached and never negative."""
    policy = torch.full((4,), -3.0, requires_grad=True)
    reference = torch.full((4,), -2.0)
    yield "KTO KL: clamped at 0", 0.0, float(kto_kl(policy, reference))
    yield "KTO KL: mean log-ratio when positive", 1.0, float(kto_kl(reference + 1, reference))
    yield "KTO KL: carries no gradient", 0.0, float(kto_kl(policy, reference - 5).requires_grad)


def layouts() -> Iterator[Found]:
    """The row that shares its prompt, against plain sequences."""
    model, groups = tiny_model(1), tiny_groups()
    together = completion_log_probs(model, layout(groups)).sums
    apart = torch.stack([alone(model, group.prompt, c) for group in groups for c in group.completions])
    yield "shared prompt: log-probabilities equal to separate sequences", 0.0, mean((together - apart).abs())
    single = torch.cat([completion_log_probs(model, layout([group])).sums for group in groups])
    yield "padding: log-probabilities equal to rows alone", 0.0, mean((together - single).abs())
    yield "shared prompt: gradient from one completion to the other", 0.0, leak(model, groups[0])
    tokens = int(layout(groups)["target"].shape[0])
    yield "mask: every completion token counts once, no prompt token", sum(map(completion_tokens, groups)), tokens


def gradients() -> Iterator[Found]:
    """Where the gradient must vanish, and what splitting a batch must not change."""
    groups, model = tiny_groups(), tiny_model(1)
    equal = [Group(group.prompt, (group.completions[0], group.completions[0])) for group in groups]
    yield "DPO: no gradient from a pair of equal answers", 0.0, grad_norm(model, equal)
    whole = grad_norm(model, groups)
    yield "DPO: gradient is there for different answers", 1.0, float(whole > 1e-4)
    yield "accumulation: gradient norm of 4×1 equals 1×4", whole, grad_norm(model, groups, parts=4)
    yield "accumulation: gradient norm of 2×2 equals 1×4", whole, grad_norm(model, groups, parts=2)
    wider = tiny_model(1)
    add_lora(wider, 2, 4.0)
    difference = completion_log_probs(wider, layout(groups)).sums - completion_log_probs(model, layout(groups)).sums
    yield "LoRA: a new adapter changes nothing", 0.0, mean(difference.abs())


def reward_models() -> Iterator[Found]:
    """The reward head, and rankings of more than two answers."""
    model, groups = tiny_model(1), tiny_groups()
    add_score(model)
    yield "reward: 0 for a new head", 0.0, mean(rewards(model, layout(groups)).abs())
    generator = torch.Generator().manual_seed(3)
    add_score(model, torch.randn(model.shape.n_embd, generator=generator))
    together = rewards(model, layout(groups))
    single = [rewards(model, layout([Group(g.prompt, (c,))])) for g in groups for c in g.completions]
    yield "reward: read at the last token, whatever stands beside it", 0.0, mean((together - torch.cat(single)).abs())
    chosen, rejected = together.view(-1, 2).T
    difference = reward_pair_loss(chosen, rejected) - reward_pair_loss(rejected, chosen)
    yield "reward: swapped labels change the loss by −margin", 0.0, mean((difference + chosen - rejected).abs())
    ranked = reward_ranking_loss(torch.stack((chosen, rejected), 1), torch.tensor([[0, 1]]).expand(4, 2))
    yield "ranking of 2: the pair loss", mean(reward_pair_loss(chosen, rejected)), mean(ranked)
    three = torch.tensor([[2.0, 0.5, -1.0]])
    pairs = [reward_pair_loss(three[0, i], three[0, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    got = mean(reward_ranking_loss(three, torch.tensor([[0, 1, 2]])))
    yield "ranking of 3: mean of its 3 pairs", float(torch.stack(pairs).mean()), got
    tied = reward_ranking_loss(three, torch.tensor([[1, 1, 1]]))
    yield "ranking of ties: no comparison, loss 0", 0.0, mean(tied)


def references() -> Iterator[Found]:
    """Log-probabilities kept beforehand against those of the training pass; adapters on and off."""
    model, groups = tiny_model(1), tiny_groups()
    kept = score_groups(model, groups).flatten()
    now = completion_log_probs(model, layout(groups)).sums
    yield "reference: kept log-probabilities equal those of the pass", 0.0, mean((kept - now).abs())
    adapted = tiny_model(1)
    add_lora(adapted, 2, 4.0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.05)
    before = completion_log_probs(adapted, layout(groups)).sums
    merge_lora(adapted)
    after = completion_log_probs(adapted, layout(groups)).sums
    yield "LoRA: merged equals kept apart", 0.0, mean((before - after).abs())


FAMILIES: Final[Sequence[Callable[[], Iterator[Found]]]] = (
    start_values,
    symmetries,
    kto_term,
    layouts,
    gradients,
    reward_models,
    references,
    *POLICY_FAMILIES,
    *TEXT_FAMILIES,
)
"""Groups of checks, in the order in which they run."""
