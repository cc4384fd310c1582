"""KTO: learning from thumbs on single answers; the objective, and the stage `causerie train kto`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causerie.align.config import KtoConfig
from causerie.align.continued import own_and_stranger
from causerie.align.losses import kto_kl, kto_loss
from causerie.align.objective_dpo import no_rows
from causerie.align.pairs import Rows, Vote, read_pairs, read_votes, votes_of_pairs
from causerie.align.shared_rows import Group
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
from causerie.core import Artifact, CauserieError, seed_for
from causerie.model import Transformer
from causerie.train import Batch, LossParts, Objective


def kto(config: KtoConfig, workspace: Path, *, events: Events | None = None) -> Artifact:
    """Train a model (or its adapter) on liked and disliked answers of a preferences folder.

    Metrics and lineage as in `dpo`; the KL term of each update is estimated from the answers of the same micro-batch
    under prompts they do not belong to, a pairing that is fixed for the run.

    Raises:
        CauserieError: CAU-4001 for a bad setting, CAU-4101 when there is no usable row, CAU-4102 for a single one.
        Stopped: on request, with the state saved.
    """
    stage = open_stage("kto", config, workspace)
    if (there := stage.existing()) is not None:
        return there
    with stage.open_run(events) as run:
        policy = open_policy(stage)
        rows = {name: _read(config, policy, prefix) for name, prefix in (("train", ""), ("heldout", "heldout-"))}
        votes = rows["train"].rows
        if not votes:
            raise no_rows(config.preferences / "unpaired.jsonl", rows["train"])
        if len(votes) < 2:
            raise CauserieError(
                "CAU-4102", "there is a single vote", where=str(config.preferences), fix="collect at least two votes"
            )
        sides = {name: _side(policy, stage, name, found, config.seed) for name, found in rows.items()}
        liked, disliked = side_weights(config, votes)
        objective = kto_objective(config, liked, disliked)
        result = train(stage, policy, run, objective, sides, measure_votes, at_least=2, kept=config.snapshots)
        counts: dict[str, Any] = {name: {"used": len(found.rows), **found.counts} for name, found in rows.items()}
        counts["weights"] = {"liked": liked, "disliked": disliked}
        return write_result(stage, policy, result, counts, run)


def kto_objective(config: KtoConfig, liked_weight: float, disliked_weight: float) -> Objective:
    """The objective that `fit` calls. Completions 2i and 2i+1 of a batch are row i's own answer and a stranger's."""

    def objective(model: Transformer, batch: Batch) -> LossParts:
        scored = own_and_stranger(model, batch)
        sums, fixed = scored.own.sums, batch["reference"]
        liked, weight = batch["liked"], batch["weight"]
        kl = kto_kl(scored.strangers, fixed[:, 1])
        weights = {"beta": config.beta, "liked_weight": liked_weight, "disliked_weight": disliked_weight}
        per_row = kto_loss(sums, fixed[:, 0], liked, kl, **weights)
        nll = -sums / scored.own.tokens * liked
        total = per_row + config.nll_weight * nll if config.nll_weight else per_row
        ratio = (sums - fixed[:, 0]).detach()
        metrics = {"preference_loss": per_row.detach(), "kl": kl.expand_as(ratio), "reward": config.beta * ratio}
        return LossParts(
            (total * weight).sum(),
            weight.sum(),
            {name: (value * weight).sum() for name, value in metrics.items()},
            batch["ids"].numel(),
        )

    return objective


def measure_votes(scored: Tensor, side: Measured) -> dict[str, float]:
    """Figures of one side: mean log-ratio to the reference of liked and of disliked answers, and the KL estimate.

    Returns:
        kl; liked_ratio, disliked_ratio (nats, absent without such rows); margin, their difference; votes.
    """
    ratio = scored - side.values["reference"]
    liked = side.values["liked"]
    found = {"kl": float(kto_kl(scored[:, 1], side.values["reference"][:, 1])), "votes": float(len(side.groups))}
    for name, rows in (("liked", liked), ("disliked", ~liked)):
        if rows.any():
            found[f"{name}_ratio"] = float(ratio[rows, 0].mean())
    if "liked_ratio" in found and "disliked_ratio" in found:
        found["margin"] = found["liked_ratio"] - found["disliked_ratio"]
    return found


def side_weights(config: KtoConfig, votes: Sequence[Vote]) -> tuple[float, float]:
    """Weights of liked and disliked answers: as set; else the rarer side is weighted up to the mass of the other."""
    liked = sum(vote.weight for vote in votes if vote.liked)
    disliked = sum(vote.weight for vote in votes if not vote.liked)
    if config.liked_weight is not None or config.disliked_weight is not None or not liked or not disliked:
        return (
            1.0 if config.liked_weight is None else config.liked_weight,
            1.0 if config.disliked_weight is None else config.disliked_weight,
        )
    return max(1.0, disliked / liked), max(1.0, liked / disliked)


def strangers(votes: Sequence[Vote], seed: int) -> list[int]:
    """For each row another one, with another prompt where possible, whose answer is read under this row's prompt."""
    order = np.random.default_rng(seed_for(seed, "strangers")).permutation(len(votes)).tolist()
    found = [0] * len(votes)
    for place, row in enumerate(order):
        others = (order[(place + step) % len(order)] for step in range(1, len(order)))
        found[row] = next((o for o in others if votes[o].prompt != votes[row].prompt), order[(place + 1) % len(order)])
    return found


def vote_groups(votes: Sequence[Vote], seed: int) -> tuple[Group, ...]:
    """Each vote as one row: its prompt, its own answer, and a stranger's."""
    pairing = strangers(votes, seed)
    return tuple(
        Group(vote.prompt, (vote.completion, votes[other].completion))
        for vote, other in zip(votes, pairing, strict=True)
    )


def vote_side(votes: Sequence[Vote], groups: tuple[Group, ...], reference_sums: Tensor) -> Measured:
    """Rows for training or measuring."""
    liked = torch.tensor([vote.liked for vote in votes], dtype=torch.bool)
    weight = torch.tensor([vote.weight for vote in votes], dtype=torch.float32)
    return Measured(groups, {"reference": reference_sums, "liked": liked, "weight": weight})


def _read(config: KtoConfig, policy: Policy, prefix: str) -> Rows[Vote]:
    found = read_votes(config.preferences / f"{prefix}unpaired.jsonl", policy.chat, config.seq_len)
    if not config.use_pairs:
        return found
    pairs = read_pairs(config.preferences / f"{prefix}pairs.jsonl", policy.chat, config.seq_len)
    return Rows((*found.rows, *votes_of_pairs(pairs.rows)), found.counts + pairs.counts)


def _side(policy: Policy, stage: Stage, name: str, found: Rows[Vote], seed: int) -> Measured:
    if len(found.rows) < 2:  # no stranger, so no KL estimate to measure
        return vote_side((), (), torch.zeros((0, 2)))
    groups = vote_groups(found.rows, seed)
    return vote_side(found.rows, groups, reference(policy, stage, groups, f"reference {name}"))
