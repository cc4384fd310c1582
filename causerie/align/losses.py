"""Losses of preference learning, as pure functions of log-probabilities; one value per pair or row, never reduced.

Names: `policy` is the model being trained, `reference` the weights it started from; a log-probability is that of a
whole completion given its prompt, summed over tokens with the end-of-turn token included, in nats.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DpoLoss = Literal["sigmoid", "sigmoid_norm", "ipo", "robust"]


class PairLogProbs(NamedTuple):
    """Summed log-probabilities of both completions of each pair, and their lengths in tokens; each `(B,)`."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    def per_token(self) -> PairLogProbs:
        """The same as means over tokens (lengths 1)."""
        chosen, rejected = self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens
        return PairLogProbs(chosen, rejected, torch.ones_like(chosen), torch.ones_like(rejected))

    @property
    def difference(self) -> Tensor:
        """Chosen minus rejected, `(B,)`."""
        return self.chosen - self.rejected


def pair_margin(policy: PairLogProbs, reference: PairLogProbs, *, per_token: bool = False) -> Tensor:
    """Δ = (log π(c) − log π(r)) − (log π_ref(c) − log π_ref(r)), `(B,)` nats, or nats per token.

    Swapping chosen and rejected negates it; it is 0 where policy and reference agree.
    """
    if per_token:
        policy, reference = policy.per_token(), reference.per_token()
    return policy.difference - reference.difference


def dpo_loss(
    policy: PairLogProbs, reference: PairLogProbs, *, loss: DpoLoss = "sigmoid", beta: float = 0.1, noise: float = 0.1
) -> Tensor:
    """The DPO family on pairs, `(B,)`.

    - sigmoid: −log σ(βΔ) (Rafailov et al. 2023, arXiv:2305.18290, eq. 7); ln 2 at Δ = 0.
    - sigmoid_norm: the same with log-probabilities per token (Tülu 3, arXiv:2411.15124); another algorithm, which
      takes a larger β (5 there, against 0.1 for the sum); ln 2 at Δ = 0.
    - ipo: (Δ − 1/(2β))² (Azar et al. 2023, arXiv:2310.12036), with Δ per token as in TRL, so that answers of any
      length have the same target; 1/(4β²) at Δ = 0.
    - robust: [−(1−ε) log σ(βΔ) + ε log σ(−βΔ)] / (1−2ε), unbiased when a share ε of the labels is flipped
      (Chowdhury et al. 2024, arXiv:2403.00409); ln 2 at Δ = 0.

    Args:
        policy, reference: `(B,)` each; the reference without gradient.
        loss: which of the four.
        beta: strength of the pull towards the reference; larger keeps closer.
        noise: ε of `robust`, below 1/2.
    """
    if loss == "ipo":
        return (pair_margin(policy, reference, per_token=True) - 1 / (2 * beta)) ** 2
    scaled = beta * pair_margin(policy, reference, per_token=loss == "sigmoid_norm")
    if loss == "robust":
        return (-(1 - noise) * F.logsigmoid(scaled) + noise * F.logsigmoid(-scaled)) / (1 - 2 * noise)
    return -F.logsigmoid(scaled)


def kto_kl(policy_mismatched: Tensor, reference_mismatched: Tensor) -> Tensor:
    """KTO's reference point: the mean log-ratio of completions under prompts they do not belong to.

    z₀ = max(0, mean(log π(y′|x) − log π_ref(y′|x))) with y′ from another row (Ethayarajh et al. 2024,
    arXiv:2402.01306): a biased but steady estimate of KL(π‖π_ref). No gradient flows through it.

    Args:
        policy_mismatched, reference_mismatched: `(B,)`, B ≥ 2.

    Returns:
        A scalar ≥ 0, detached.
    """
    return (policy_mismatched - reference_mismatched).detach().mean().clamp(min=0)


def kto_loss(
    policy: Tensor,
    reference: Tensor,
    liked: Tensor,
    kl: Tensor,
    *,
    beta: float = 0.1,
    liked_weight: float = 1.0,
    disliked_weight: float = 1.0,
) -> Tensor:
    """KTO on single answers with a thumb, `(B,)` (Ethayarajh et al. 2024, arXiv:2402.01306).

    With r = log π(y|x) − log π_ref(y|x): λ_liked · (1 − σ(β(r − z₀))) for liked answers and
    λ_disliked · (1 − σ(β(z₀ − r))) for disliked ones; 0.5 at π = π_ref with weights 1.

    Args:
        policy, reference: `(B,)` summed log-probabilities.
        liked: `(B,)` bool.
        kl: scalar z₀ of `kto_kl`.
    """
    distance = beta * (policy - reference - kl)
    good = liked_weight * (1 - torch.sigmoid(distance))
    bad = disliked_weight * (1 - torch.sigmoid(-distance))
    return torch.where(liked, good, bad)


def reward_pair_loss(chosen: Tensor, rejected: Tensor, *, centring: float = 0.0) -> Tensor:
    """Bradley-Terry loss of a reward model, −log σ(r₊ − r₋) + η (r₊ + r₋)², `(B,)`; ln 2 for a zero head.

    A constant added to all rewards changes nothing while η is 0 (Ouyang et al. 2022, arXiv:2203.02155, eq. 1; the
    centring term is Eisenstein et al. 2023, arXiv:2312.09244).
    """
    return -F.logsigmoid(chosen - rejected) + centring * (chosen + rejected) ** 2


def reward_ranking_loss(rewards: Tensor, ranks: Tensor, *, centring: float = 0.0) -> Tensor:
    """Bradley-Terry loss of K ranked answers to each prompt: the mean over a row's ordered pairs, `(n,)`.

    All C(K, 2) comparisons of a prompt form one batch element; as separate elements they are learnt by heart (Ouyang et
    al. 2022, arXiv:2203.02155, section 3.5). Ties are no comparison; a row without any comparison has loss 0.

    Args:
        rewards: `(n, K)`. ranks: `(n, K)`, smaller is better; negative where a row has fewer than K answers.
    """
    known = ranks >= 0
    ordered = (ranks[:, :, None] < ranks[:, None, :]) & known[:, :, None] & known[:, None, :]
    each = reward_pair_loss(rewards[:, :, None], rewards[:, None, :], centring=centring)
    return torch.where(ordered, each, 0.0).sum((1, 2)) / ordered.sum((1, 2)).clamp(min=1)
