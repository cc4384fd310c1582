"""Learning from preferences: DPO and KTO on the one training loop, their losses, and closed-form checks of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.align.config import DpoConfig, KtoConfig
from causerie.align.errors import ERRORS
from causerie.align.pairs import encode_answer, encode_prompt, fit_length, read_pairs, read_votes
from causerie.core import lazy_names

if TYPE_CHECKING:
    from causerie.align.batches import GroupBatches, length_batches
    from causerie.align.checks import Check, run_checks
    from causerie.align.losses import PairLogProbs, dpo_loss, kto_kl, kto_loss, pair_margin, reward_pair_loss
    from causerie.align.objective_dpo import dpo, dpo_objective
    from causerie.align.objective_kto import kto, kto_objective
    from causerie.align.scoring import reference_log_probs, score_groups
    from causerie.align.shared_rows import Group, completion_log_probs, layout

__all__ = [
    "ERRORS",
    "Check",
    "DpoConfig",
    "Group",
    "GroupBatches",
    "KtoConfig",
    "PairLogProbs",
    "completion_log_probs",
    "dpo",
    "dpo_loss",
    "dpo_objective",
    "encode_answer",
    "encode_prompt",
    "fit_length",
    "kto",
    "kto_kl",
    "kto_loss",
    "kto_objective",
    "layout",
    "length_batches",
    "pair_margin",
    "read_pairs",
    "read_votes",
    "reference_log_probs",
    "reward_pair_loss",
    "run_checks",
    "score_groups",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("GroupBatches", "length_batches"), "batches"),
        **dict.fromkeys(("Check", "run_checks"), "checks"),
        **dict.fromkeys(("dpo", "dpo_objective"), "objective_dpo"),
        **dict.fromkeys(("kto", "kto_objective"), "objective_kto"),
        **dict.fromkeys(("Group", "completion_log_probs", "layout"), "shared_rows"),
        **dict.fromkeys(
            ("PairLogProbs", "dpo_loss", "kto_kl", "kto_loss", "pair_margin", "reward_pair_loss"), "losses"
        ),
        **dict.fromkeys(("reference_log_probs", "score_groups"), "scoring"),
    },
)
