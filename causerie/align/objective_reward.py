"""Reward modelling: Bradley-Terry on pairs and rankings, and the stage `causerie train reward`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from causerie.align.config import RewardConfig
from causerie.align.losses import reward_ranking_loss
from causerie.align.objective_dpo import no_rows, wins
from causerie.align.rankings import Ranking, ranks_tensor, read_rankings
from causerie.align.reward_model import add_score, keep_layers, read_states, rewards, save_reward, score_weight
from causerie.align.shared_rows import layout
from causerie.align.stage import Events, Measured, Policy, open_policy, open_stage, train, write_result
from causerie.align.word_baseline import bag_of_words_accuracy
from causerie.core import Artifact, seed_for, track
from causerie.model import Transformer
from causerie.train import Batch, LossParts, Objective, autocast

UNTRAINED_HEADS: Final = 16
"""Random heads on the untrained trunk whose mean accuracy is the baseline."""

FOLDS: Final = 5
RIDGES: Final = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Ridges tried for the first head."""


def reward(config: RewardConfig, workspace: Path, *, events: Events | None = None) -> Artifact:
    """Train a reward model (all weights, through a LoRA adapter that is then merged, or the head alone).

    The artifact (kind "reward") is a Hugging Face folder for sequence classification with one label. Its metrics have
    loss, accuracy with a 95 % interval, calibration, and beside them what a length rule, untrained heads and a bag of
    words (on the held-out rows) score.

    Raises:
        CauserieError: CAU-4001 for a bad setting, CAU-4101 when there is no usable row.
        Stopped: on request, with the state saved.
    """
    stage = open_stage("reward", config, workspace)
    if (there := stage.existing()) is not None:
        return there
    with stage.open_run(events) as run:
        policy = open_policy(stage)
        if config.layers is not None:
            keep_layers(policy.model, config.layers)
        rows = {
            name: read_rankings(config.preferences, prefix, policy.chat, config.seq_len)
            for name, prefix in (("train", ""), ("heldout", "heldout-"))
        }
        if not rows["train"].rows:
            raise no_rows(config.preferences / "pairs.jsonl", rows["train"])
        sides = {name: ranking_side(found.rows) for name, found in rows.items()}
        states = {name: read_all_states(policy, side, f"states {name}") for name, side in sides.items() if side.groups}
        baseline = start_head(config, policy, sides, states)
        known = KnownStates.of(sides, states) if config.head_only else None
        result = train(
            stage,
            policy,
            run,
            reward_objective(config, known),
            sides if known is None else known.placed(sides),
            measure_rankings,
            score=rewards,
            score_side=None if known is None else lambda side: known.rewards(policy.model, side.values).detach().cpu(),
        )
        counts = {name: {"used": len(found.rows), **found.counts} for name, found in rows.items()}

        def save(model: Transformer, folder: Path) -> None:
            save_reward(model, folder, config.model)

        words = bag_of_words_accuracy(rows["train"].rows, rows["heldout"].rows) if rows["heldout"].rows else None
        floor = {"untrained_heads": baseline, "bag_of_words": words}
        return write_result(stage, policy, result, {**counts, **floor}, run, save)


@dataclass(frozen=True)
class KnownStates:
    """Last states of all rows' answers, for a trunk that stays as it is: it need not be run again."""

    table: Tensor
    """(N, K, D) float32, zero where a row has fewer than K answers."""

    @classmethod
    def of(cls, sides: Mapping[str, Measured], states: Mapping[str, Tensor]) -> KnownStates:
        """The states of all sides, one after the other."""
        width = max(found.shape[1] for found in states.values())
        return cls(
            torch.cat([pad(states[name], (0, 0, 0, width - states[name].shape[1])) for name in sides if name in states])
        )

    def placed(self, sides: Mapping[str, Measured]) -> dict[str, Measured]:
        """The sides, each row knowing its place in the table."""
        found, start = {}, 0
        for name, side in sides.items():
            place = torch.arange(start, start + len(side.groups))
            found[name] = Measured(side.groups, {**side.values, "place": place})
            start += len(side.groups)
        return found

    def rewards(self, model: Transformer, values: Mapping[str, Tensor]) -> Tensor:
        """Rewards of rows by their places, `(n, K)` as their ranks, zero where there is no answer."""
        weight = score_weight(model)
        return self.table[values["place"].cpu()].to(weight.device)[:, : values["ranks"].shape[1]] @ weight.float()


def reward_objective(config: RewardConfig, known: KnownStates | None = None) -> Objective:
    """The objective that `fit` calls: per prompt the mean over its comparisons, prompts by their weight.

    With `known` states the head alone is run.
    """

    def objective(model: Transformer, batch: Batch) -> LossParts:
        found = known.rewards(model, batch) if known else by_row(rewards(model, batch), batch["ranks"])
        loss = reward_ranking_loss(found, batch["ranks"], centring=config.centring)
        weight = batch["weight"]
        best, worst = ends_of(found.detach(), batch["ranks"])
        figures = {"accuracy": wins(best - worst), "margin": best - worst}
        return LossParts(
            (loss * weight).sum(),
            weight.sum(),
            {name: (value * weight).sum() for name, value in figures.items()},
            batch["ids"].numel(),
        )

    return objective


def measure_rankings(scored: Tensor, side: Measured) -> dict[str, float]:
    """Figures of one side, over prompts, best answer against worst.

    Returns:
        loss (plain Bradley-Terry); accuracy (a tie counts half) with low and high of its 95 % interval by prompts;
        longer_wins: what "the longer answer" would score; shorter_chosen_accuracy: accuracy where the better answer is
        the shorter one; length_correlation of reward and length; calibration_gap: mean |σ(margin) − won| in ten bins;
        margin, reward_mean, reward_deviation, rows.
    """
    ranks, lengths = side.values["ranks"], side.values["tokens"]
    best, worst = ends_of(scored, ranks)
    long_best, long_worst = ends_of(lengths, ranks)
    won, known = wins(best - worst), ranks >= 0
    error = 1.96 * float(won.std()) / math.sqrt(len(won)) if len(won) > 1 else 1.0
    shorter = long_best < long_worst
    found = {
        "loss": float(reward_ranking_loss(scored, ranks).mean()),
        "accuracy": float(won.mean()),
        "accuracy_low": max(0.0, float(won.mean()) - error),
        "accuracy_high": min(1.0, float(won.mean()) + error),
        "longer_wins": float(wins(long_best - long_worst).mean()),
        "length_correlation": correlation(scored[known], lengths[known]),
        "calibration_gap": calibration_gap(torch.sigmoid(best - worst), won),
        "margin": float((best - worst).mean()),
        "reward_mean": float(scored[known].mean()),
        "reward_deviation": float(scored[known].std()),
        "rows": float(len(side.groups)),
    }
    if shorter.any():
        found["shorter_chosen_accuracy"] = float(won[shorter].mean())
    return found


def start_head(
    config: RewardConfig, policy: Policy, sides: Mapping[str, Measured], states: Mapping[str, Tensor]
) -> dict[str, float]:
    """Give the model its head: the probe's, or zero. Returns what random heads score on the states given.

    Args:
        config: whether to look for a head, and with which ridge.
        policy: the model.
        sides: the rows.
        states: their answers' last states, (n, K, D) by side, with the trunk as given.
    """
    device = policy.device
    shown = "heldout" if "heldout" in states else "train"
    baseline = random_heads(states[shown], sides[shown].values["ranks"], config.seed)
    weight = None
    if config.probe:
        groups = [group.prompt for group in sides["train"].groups]
        l2 = config.probe_l2 or best_ridge(states["train"], sides["train"].values, groups, config.seed)
        weight = fit_probe(states["train"], sides["train"].values, l2=l2).to(device)
        baseline["probe_l2"] = l2
    if config.head_only:
        policy.model.requires_grad_(False)
    add_score(policy.model, weight)
    return baseline


def read_all_states(policy: Policy, side: Measured, label: str) -> Tensor:
    """Last states of every answer of a side, (n, K, D) float32, zero where a row has fewer than K."""
    width = side.values["ranks"].shape[1]
    found = torch.zeros((len(side.groups), width, policy.model.shape.n_embd))
    policy.model.eval()
    with torch.no_grad(), autocast(policy.device, policy.bf16), track(label, len(side.groups), "prompts") as tracker:
        for row, group in enumerate(side.groups):
            batch = {name: value.to(policy.device) for name, value in layout([group]).items()}
            states = read_states(policy.model, batch).cpu()
            found[row, : len(states)] = states
            tracker.advance()
    return found


def fit_probe(states: Tensor, values: Mapping[str, Tensor], *, l2: float) -> Tensor:
    """Head (D,) of ridge logistic regression on the differences of best and worst answer's states, by Newton's method.

    Features are scaled to deviation 1 for the ridge and back for the head, so that it reads the states as they are.
    """
    best, worst = (_chosen(states, values["ranks"], end) for end in (min, max))
    difference, weight = (best - worst).double(), values["weight"].double()
    scale = difference.square().mean(0).sqrt().clamp(min=1e-6)
    x, w = difference / scale, torch.zeros(states.shape[-1], dtype=torch.float64)
    ridge = l2 * torch.eye(len(w), dtype=torch.float64)
    for _ in range(30):
        p = torch.sigmoid(x @ w)
        gradient = x.T @ (weight * (p - 1)) + l2 * w
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge
        step = torch.linalg.solve(hessian, gradient)
        w = w - step
        if float(step.abs().max()) < 1e-8:
            break
    return (w / scale).float()


def best_ridge(states: Tensor, values: Mapping[str, Tensor], prompts: Sequence[Sequence[int]], seed: int) -> float:
    """The ridge of `RIDGES` with the best accuracy over five folds; answers to one prompt stay in one fold."""
    names = {prompt: number for number, prompt in enumerate(dict.fromkeys(tuple(p) for p in prompts))}
    order = np.random.default_rng(seed_for(seed, "folds")).permutation(len(names))
    fold = torch.from_numpy(order % FOLDS)[[names[tuple(p)] for p in prompts]]
    if len(names) < 2 * FOLDS:
        return RIDGES[-1]
    best, worst = (_chosen(states, values["ranks"], end) for end in (min, max))
    scores = []
    for l2 in RIDGES:
        right = 0.0
        for number in range(FOLDS):
            inside, out = fold != number, fold == number
            head = fit_probe(states[inside], {name: value[inside] for name, value in values.items()}, l2=l2)
            right += float(wins((best[out] - worst[out]) @ head).sum())
        scores.append(right)
    return RIDGES[scores.index(max(scores))]


def random_heads(states: Tensor, ranks: Tensor, seed: int) -> dict[str, float]:
    """Mean and deviation of the accuracy of `UNTRAINED_HEADS` random directions: the floor is not always one half."""
    generator = torch.Generator().manual_seed(seed_for(seed, "untrained heads"))
    heads = torch.randn((states.shape[-1], UNTRAINED_HEADS), generator=generator)
    best, worst = (_chosen(states, ranks, end) for end in (min, max))
    accuracy = wins((best - worst) @ heads).mean(0)
    return {"accuracy": float(accuracy.mean()), "deviation": float(accuracy.std()), "best": float(accuracy.max())}


def ranking_side(rows: Sequence[Ranking]) -> Measured:
    """Rows for training or measuring: answers of a group, and per row ranks, weight and lengths."""
    ranks = ranks_tensor(rows)
    tokens = torch.zeros(ranks.shape)
    for index, row in enumerate(rows):
        tokens[index, : len(row.completions)] = torch.tensor([float(len(c)) for c in row.completions])
    weight = torch.tensor([row.weight for row in rows], dtype=torch.float32)
    return Measured(tuple(row.group for row in rows), {"ranks": ranks, "weight": weight, "tokens": tokens})


def by_row(flat: Tensor, ranks: Tensor) -> Tensor:
    """Figures of completions `(G,)` as `(n, K)`, zero where a row has fewer than K."""
    return torch.zeros(ranks.shape, dtype=flat.dtype, device=flat.device).masked_scatter(ranks >= 0, flat)


def ends_of(figures: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """The figure of the best and of the worst answer of each row, `(n,)` both."""
    return _chosen(figures[..., None], ranks, min)[:, 0], _chosen(figures[..., None], ranks, max)[:, 0]


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation; 0 where either is constant."""
    a, b = first - first.mean(), second - second.mean()
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size else 0.0


def calibration_gap(promised: Tensor, won: Tensor) -> float:
    """Expected calibration error of probabilities, ten equal bins (arXiv:1706.04599)."""
    bins = (promised * 10).long().clamp(max=9)
    gaps = [(promised[bins == b] - won[bins == b]).mean().abs() * (bins == b).float().mean() for b in range(10)]
    return float(sum(gap for gap in gaps if not bool(gap.isnan())))


def _chosen(values: Tensor, ranks: Tensor, end: Callable[..., int]) -> Tensor:
    """(n, K, F) → (n, F): the first answer with the smallest (`min`) or largest (`max`) rank."""
    far = ranks.masked_fill(ranks < 0, 1 << 30) if end is min else ranks
    index = far.argmin(1) if end is min else far.argmax(1)
    return values[torch.arange(len(values), device=values.device), index]
