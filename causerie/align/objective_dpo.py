"""Direct preference optimisation: the objective on pairs, and the stage `causerie train dpo`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from causerie.align.config import DpoConfig
from causerie.align.losses import PairLogProbs, dpo_loss, pair_margin
from causerie.align.pairs import Pair, Rows, read_pairs
from causerie.align.shared_rows import Group, completion_log_probs
from causerie.align.stage import (
    Events,
    Measured,
    Policy,
    Stage,
    open_policy,
    open_stage,
    reference,
    train,
    write_result,
)
from causerie.core import Artifact, CauserieError
from causerie.model import Transformer
from causerie.train import Batch, LossParts, Objective


def dpo(config: DpoConfig, workspace: Path, *, events: Events | None = None) -> Artifact:
    """Train a model (or its adapter) on the pairs of a preferences folder.

    The reference is the model as given, its log-probabilities computed once before the first update and kept. The
    artifact's `manifest.metrics` has loss, margin, accuracy and the drift of the chosen answers on training and
    held-out pairs, before and after; `manifest.inputs` has the keys of model (and base) and preferences.

    `events` hears every event of the run (`step`, `preference`) beside the run folder.

    Raises:
        CauserieError: CAU-4001 for a bad setting, CAU-4101 when there is no usable pair.
        Stopped: on request, with the state saved.
    """
    stage = open_stage("dpo", config, workspace)
    if (there := stage.existing()) is not None:
        return there
    with stage.open_run(events) as run:
        policy = open_policy(stage)
        files = {"train": "pairs.jsonl", "heldout": "heldout-pairs.jsonl"}
        rows = {
            name: read_pairs(config.preferences / file, policy.chat, config.seq_len) for name, file in files.items()
        }
        if not rows["train"].rows:
            raise no_rows(config.preferences / "pairs.jsonl", rows["train"])
        sides = {name: _side(policy, stage, name, found) for name, found in rows.items()}
        objective = dpo_objective(config)
        kept = config.snapshots
        result = train(
            stage, policy, run, objective, sides, lambda scored, side: measure_pairs(config, scored, side), kept=kept
        )
        counts = {name: {"used": len(found.rows), **found.counts} for name, found in rows.items()}
        return write_result(stage, policy, result, counts, run)


def dpo_objective(config: DpoConfig) -> Objective:
    """The objective that `fit` calls: the pair loss plus `nll_weight` times the chosen answers' nats per token.

    The NLL term per token of the answer is that of Pang et al. 2024 (arXiv:2404.19733). Pairs count by their weight.
    Batches are those of `pair_side` rows: completions 2i and 2i+1 are the chosen and the rejected one of row i.
    """

    def objective(model: Transformer, batch: Batch) -> LossParts:
        scored = completion_log_probs(model, batch)
        policy = pair_log_probs(scored.sums.view(-1, 2), scored.tokens.view(-1, 2))
        fixed = pair_log_probs(batch["reference"], scored.tokens.view(-1, 2))
        per_pair = _pair_loss(config, policy, fixed)
        nll = -policy.chosen / policy.chosen_tokens
        total = per_pair + config.nll_weight * nll if config.nll_weight else per_pair
        weight = batch["weight"]
        margin = pair_margin(policy, fixed).detach()
        metrics = {
            "preference_loss": per_pair.detach(),
            "chosen_nats_per_token": nll.detach(),
            "margin": margin,
            "accuracy": wins(margin),
        }
        return LossParts(
            (total * weight).sum(),
            weight.sum(),
            {name: (value * weight).sum() for name, value in metrics.items()},
            batch["ids"].numel(),
        )

    return objective


def measure_pairs(config: DpoConfig, scored: Tensor, side: Measured) -> dict[str, float]:
    """Figures of one side: means over its pairs.

    Returns:
        loss (without NLL term), accuracy (a tie counts half), margin in nats, chosen_nats_per_token, chosen_drift and
        rejected_drift (nats per token that the model's log-probability rose since the reference), pairs.
    """
    lengths = side.values["tokens"]
    policy, fixed = pair_log_probs(scored, lengths), pair_log_probs(side.values["reference"], lengths)
    margin = pair_margin(policy, fixed)
    return {
        "loss": float(_pair_loss(config, policy, fixed).mean()),
        "accuracy": float(wins(margin).mean()),
        "margin": float(margin.mean()),
        "chosen_nats_per_token": float(-policy.chosen.sum() / policy.chosen_tokens.sum()),
        "chosen_drift": float(((policy.chosen - fixed.chosen) / policy.chosen_tokens).mean()),
        "rejected_drift": float(((policy.rejected - fixed.rejected) / policy.rejected_tokens).mean()),
        "pairs": float(len(side.groups)),
    }


def pair_side(pairs: tuple[Pair, ...], reference_sums: Tensor) -> Measured:
    """Rows for training or measuring: two completions a group, and per row reference, weight and lengths."""
    groups = tuple(pair_group(pair) for pair in pairs)
    tokens = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in pairs], dtype=torch.float32).view(-1, 2)
    weight = torch.tensor([pair.weight for pair in pairs], dtype=torch.float32)
    return Measured(groups, {"reference": reference_sums, "weight": weight, "tokens": tokens})


def pair_group(pair: Pair) -> Group:
    """A pair as one row: its prompt once, then both answers."""
    return Group(pair.prompt, (pair.chosen, pair.rejected))


def pair_log_probs(sums: Tensor, tokens: Tensor) -> PairLogProbs:
    """Columns 0 (chosen) and 1 (rejected) of `(B, 2)` sums and lengths."""
    return PairLogProbs(sums[:, 0], sums[:, 1], tokens[:, 0], tokens[:, 1])


def wins(margin: Tensor) -> Tensor:
    """1 where the margin is above 0, 0.5 where it is 0."""
    return (margin > 0).float() + 0.5 * (margin == 0).float()


def no_rows(path: Path, found: Rows) -> CauserieError:
    """CAU-4101 with what was left out."""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in found.counts.items() if count)
    return CauserieError(
        "CAU-4101",
        f"no usable row ({reasons or 'the file is missing or empty'})",
        where=str(path),
        fix="collect or import preferences first (causerie feedback import)",
    )


def _pair_loss(config: DpoConfig, policy: PairLogProbs, fixed: PairLogProbs) -> Tensor:
    return dpo_loss(policy, fixed, loss=config.loss, beta=config.beta, noise=config.noise)


def _side(policy: Policy, stage: Stage, name: str, found: Rows[Pair]) -> Measured:
    groups = tuple(pair_group(pair) for pair in found.rows)
    sums = reference(policy, stage, groups, f"reference {name}") if groups else torch.zeros((0, 2))
    return pair_side(found.rows, sums)
