"""Closed-form invariants of preference learning, checked on a tiny random model: `causerie doctor alignment`.

Every check compares a number that theory gives with the number that the code used in training computes. They run in
about a second on one core and in the test suite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from causerie.align.losses import PairLogProbs, dpo_loss, kto_kl, kto_loss, pair_margin, reward_pair_loss
from causerie.align.shared_rows import Group, completion_log_probs, layout
from causerie.model import ModelShape, Transformer, add_lora, init_model, shape_from_depth, token_log_probs

TOLERANCE: Final = 1e-5
BETA: Final = 0.1
VOCABULARY: Final = 61


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


Found = tuple[str, float, float]
"""Name, expected, got."""


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


FAMILIES: Final[Sequence[Callable[[], Iterator[Found]]]] = (start_values, symmetries, kto_term, layouts, gradients)
"""Groups of checks, in the order in which they run."""


def tiny_shape() -> ModelShape:
    """A two-layer Qwen3 shape."""
    return shape_from_depth(2, VOCABULARY)


def tiny_model(shake: int = 0) -> Transformer:
    """A random model whose every weight plays a part; models with different `shake` differ."""
    model = init_model(tiny_shape(), 0)
    generator = torch.Generator().manual_seed(shake)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_groups() -> list[Group]:
    """Four prompts with two answers each, of different lengths."""
    generator = torch.Generator().manual_seed(7)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    return [
        Group(ids(prompt), (ids(first), ids(second)))
        for prompt, first, second in ((5, 3, 6), (9, 4, 4), (3, 7, 1), (6, 2, 5))
    ]


def pair_log_probs(model: Transformer, groups: Sequence[Group], *, grad: bool = True) -> PairLogProbs:
    """Both sides' log-probabilities of each group."""
    with torch.set_grad_enabled(grad):
        found = completion_log_probs(model, layout(groups))
    sums, tokens = found.sums.view(-1, 2), found.tokens.view(-1, 2)
    return PairLogProbs(sums[:, 0], sums[:, 1], tokens[:, 0], tokens[:, 1])


def swap(pairs: PairLogProbs) -> PairLogProbs:
    """The same pairs with chosen and rejected exchanged."""
    return PairLogProbs(pairs.rejected, pairs.chosen, pairs.rejected_tokens, pairs.chosen_tokens)


def alone(model: Transformer, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """A completion's log-probability in a plain sequence of its own."""
    ids = torch.tensor([[*prompt, *completion]])
    mask = torch.tensor([[0] * len(prompt) + [1] * len(completion)])
    return token_log_probs(model, ids, mask).sum()


def completion_tokens(group: Group) -> int:
    """Tokens of a group's completions."""
    return sum(map(len, group.completions))


def leak(model: Transformer, group: Group) -> float:
    """Largest gradient of the second completion's log-probability with respect to the first one's embeddings."""
    batch = layout([group])
    seen: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    handle = model.embed_tokens.register_forward_hook(keep)
    try:
        completion_log_probs(model, batch).sums[1].backward()
    finally:
        handle.remove()
    model.zero_grad(set_to_none=True)
    gradient = seen[0].grad
    assert gradient is not None
    return float(gradient[batch["segment"] == 1].abs().max())


def grad_norm(model: Transformer, groups: Sequence[Group], *, parts: int = 1) -> float:
    """Norm of the gradient of the mean DPO loss over the groups, computed in so many micro-batches."""
    model.zero_grad(set_to_none=True)
    reference = pair_log_probs(tiny_model(), groups, grad=False)
    size = len(groups) // parts
    for start in range(0, len(groups), size):
        part = slice(start, start + size)
        fixed = PairLogProbs(*(value[part] for value in reference))
        (dpo_loss(pair_log_probs(model, groups[part]), fixed, beta=BETA).sum() / len(groups)).backward()
    found = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return float(torch.stack(found).norm())


def mean(values: Tensor) -> float:
    """The mean as a number."""
    return float(values.detach().mean())
