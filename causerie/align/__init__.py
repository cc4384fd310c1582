"""Alignment: reward models, DPO, KTO and GRPO on the one training loop; their losses, PPO, and closed-form checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.align.config import DpoConfig, GrpoConfig, KtoConfig, RewardConfig
from causerie.align.errors import ERRORS
from causerie.align.pairs import encode_answer, encode_prompt, fit_length, read_pairs, read_votes
from causerie.core import lazy_names

if TYPE_CHECKING:
    from causerie.align.batches import GroupBatches, length_batches
    from causerie.align.checks import Check, run_checks
    from causerie.align.losses import (
        PairLogProbs,
        dpo_loss,
        kto_kl,
        kto_loss,
        pair_margin,
        reward_pair_loss,
        reward_ranking_loss,
    )
    from causerie.align.objective_dpo import dpo, dpo_objective
    from causerie.align.objective_grpo import grpo, grpo_objective
    from causerie.align.objective_kto import kto, kto_objective
    from causerie.align.objective_reward import reward, reward_objective
    from causerie.align.ppo import (
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
    from causerie.align.reward_model import is_reward_model, load_reward, save_reward
    from causerie.align.scoring import reference_log_probs, score_groups
    from causerie.align.shared_rows import Group, completion_log_probs, completion_token_log_probs, layout

__all__ = [
    "ERRORS",
    "Check",
    "DpoConfig",
    "Group",
    "GroupBatches",
    "GrpoConfig",
    "Judged",
    "KtoConfig",
    "PairLogProbs",
    "PpoSettings",
    "RewardConfig",
    "Steps",
    "action_weights",
    "clipped_loss",
    "clipped_value_loss",
    "completion_log_probs",
    "completion_token_log_probs",
    "dpo",
    "dpo_loss",
    "dpo_objective",
    "encode_answer",
    "encode_prompt",
    "fit_length",
    "gae",
    "group_advantages",
    "grpo",
    "grpo_objective",
    "is_reward_model",
    "kl_estimate",
    "kto",
    "kto_kl",
    "kto_loss",
    "kto_objective",
    "layout",
    "length_batches",
    "load_reward",
    "pair_margin",
    "ppo_update",
    "read_pairs",
    "read_votes",
    "reference_log_probs",
    "reward",
    "reward_objective",
    "reward_pair_loss",
    "reward_ranking_loss",
    "rloo_advantages",
    "run_checks",
    "save_reward",
    "score_groups",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("GroupBatches", "length_batches"), "batches"),
        **dict.fromkeys(("Check", "run_checks"), "checks"),
        **dict.fromkeys(("dpo", "dpo_objective"), "objective_dpo"),
        **dict.fromkeys(("grpo", "grpo_objective"), "objective_grpo"),
        **dict.fromkeys(("kto", "kto_objective"), "objective_kto"),
        **dict.fromkeys(("reward", "reward_objective"), "objective_reward"),
        **dict.fromkeys(
            (
                "Judged",
                "PpoSettings",
                "Steps",
                "action_weights",
                "clipped_loss",
                "clipped_value_loss",
                "gae",
                "group_advantages",
                "kl_estimate",
                "ppo_update",
                "rloo_advantages",
            ),
            "ppo",
        ),
        **dict.fromkeys(("is_reward_model", "load_reward", "save_reward"), "reward_model"),
        **dict.fromkeys(("Group", "completion_log_probs", "completion_token_log_probs", "layout"), "shared_rows"),
        **dict.fromkeys(
            (
                "PairLogProbs",
                "dpo_loss",
                "kto_kl",
                "kto_loss",
                "pair_margin",
                "reward_pair_loss",
                "reward_ranking_loss",
            ),
            "losses",
        ),
        **dict.fromkeys(("reference_log_probs", "score_groups"), "scoring"),
    },
)
