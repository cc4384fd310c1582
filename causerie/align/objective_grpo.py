"""Group-relative policy optimisation and its kin: the objective on rollouts, and the stage `causerie train grpo`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from causerie.align.config import GrpoConfig
from causerie.align.ppo import action_weights, clipped_loss, kl_estimate
from causerie.align.rewards import Reward, each
from causerie.align.rewards.answer_format import answer_format
from causerie.align.rewards.arithmetic import exact_answer
from causerie.align.rewards.instructions import Follows, instructions_followed
from causerie.align.rewards.learned import learned_reward
from causerie.align.rewards.overlong import overlong_punishment
from causerie.align.rollouts import GrpoBatches, Prompt, Sampler, read_prompts
from causerie.align.shared_rows import completion_token_log_probs
from causerie.align.stage import Events, default_preference_lr, limited, open_policy, open_stage, write_result
from causerie.core import Artifact, CauserieError, seed_for, sha256_json
from causerie.model import Transformer
from causerie.text import ChatFormat
from causerie.train import Batch, Callback, LossParts, Objective, bad_setting, fit, keep_snapshots

Judge = Callable[[Mapping[str, Any], str], float]
"""What an answer (text) to a prompt's row is worth."""


def grpo(
    config: GrpoConfig,
    workspace: Path,
    *,
    follows: Follows | None = None,
    judge: Judge | None = None,
    events: Events | None = None,
) -> Artifact:
    """Train a model (or its adapter) on rewards of its own answers.

    Each update samples `group_size` answers to `batch_size` prompts from the weights as they are. The run logs an event
    `rollout` each; the artifact's metrics have reward, exact-match style accuracy and length on held-out prompts
    (greedy), before and after, and the largest gap between the engine's and the trainer's log-probabilities.

    Args:
        config: see `GrpoConfig`.
        workspace: where artifacts and runs live.
        follows: checker of verifiable instructions, for the reward `instructions`.
        judge: what the grader in `config.grader` says, for the reward `graded`.
        events: hears every event of the run.

    Raises:
        CauserieError: CAU-4001 for a bad setting, CAU-4104 for a bad reward model, CAU-4105 without usable prompts.
        Stopped: on request, with the state saved.
    """
    stage = open_stage("grpo", config, workspace)
    if (there := stage.existing()) is not None:
        return there
    with stage.open_run(events) as run:
        policy = open_policy(stage)
        train, heldout, counts = load_prompts(config, policy.chat)
        sampler = Sampler(
            policy.model.to(policy.device), policy.chat, config, pick_rewards(config, policy.chat, follows, judge)
        )
        reference = None
        if config.beta:
            trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
            reference = {name: p.detach().clone() for name, p in trained.items()}
        batches = GrpoBatches(train, sampler, config, run, reference)
        callback = Callback(lambda _, step: measure(sampler, heldout, config), "preference", config.eval_every)
        settings = limited(config, batches.steps_per_epoch)
        peak = (config.lr or default_preference_lr(policy.model)) * config.lr_scale
        settings = dataclasses.replace(settings, lr=peak)
        objective = grpo_objective(config, batches.gap)
        kept = keep_snapshots(config.snapshots, settings.steps, run.path, config.model, stage.key, workspace)
        result = fit(policy.model, objective, batches, settings, run, callbacks=[callback, *kept])
        counts["log_prob_gap"] = batches.gap[0]
        return write_result(stage, policy, result, counts, run)


def grpo_objective(config: GrpoConfig, gap: list[float] | None = None) -> Objective:
    """The objective that `fit` calls on the micro-batches of a rollout.

    With one pass per rollout the old policy is the current one and the ratio exactly 1; with more it is the one that
    sampled, by the trainer's log-probabilities before the first of them.
    """

    def objective(model: Transformer, batch: Batch) -> LossParts:
        now = completion_token_log_probs(model, batch, config.temperature)
        old = batch["old"] if config.passes > 1 and "old" in batch else now.detach()
        clipped = clipped_loss(now, old, batch["advantage"], clip_low=config.clip_low, clip_high=config.upper_clip)
        loss, figures = clipped.loss, {"clip_fraction": clipped.clipped.float()}
        if "old" in batch:
            difference = (now.detach() - batch["old"]).abs()
            figures["log_prob_gap"] = difference
            if gap is not None and config.passes == 1:
                gap[0] = max(gap[0], float(difference.max()))
        if "reference" in batch:
            kl = kl_estimate(now, batch["reference"], config.kl)
            loss, figures["kl"] = loss + config.beta * kl, kl.detach()
        weights, units = action_weights(batch["owner"], batch["lengths"], config.variant, config.max_tokens)
        units = units + batch["uncounted"]
        share = units / weights.shape[0]
        return LossParts(
            (loss * weights).sum(),
            units,
            {name: value.sum() * share for name, value in figures.items()},
            batch["ids"].numel(),
        )

    return objective


def pick_rewards(
    config: GrpoConfig, chat: ChatFormat, follows: Follows | None, judge: Judge | None = None
) -> list[tuple[Reward, float]]:
    """The rewards of a run with their weights.

    Raises:
        CauserieError: CAU-4001 for `instructions` without a checker or `graded` without a judge, CAU-4104 for a bad
            reward model.
    """
    weights = config.reward_weights or (1.0,) * len(config.rewards)
    found = []
    for name, weight in zip(config.rewards, weights, strict=True):
        if name == "instructions":
            if follows is None:
                raise bad_setting("rewards", name, "a checker of instructions, as the command line does")
            found.append((instructions_followed(follows), weight))
        elif name == "graded":
            if judge is None:
                raise bad_setting("rewards", name, "a judge made from the grader, as the command line does")
            found.append((each(judge), weight))
        elif name == "learned":
            assert config.reward_model is not None
            found.append((learned_reward(config.reward_model, chat), weight))
        else:
            found.append((each(exact_answer if name == "arithmetic" else answer_format), weight))
    if config.overlong_buffer:
        found.append((overlong_punishment(config.max_tokens, config.overlong_buffer), 1.0))
    return found


def load_prompts(config: GrpoConfig, chat: ChatFormat) -> tuple[list[Prompt], list[Prompt], dict[str, Any]]:
    """Prompts to train on and to measure on, and what was left out.

    Raises:
        CauserieError: see `read_prompts`.
    """
    room = max(1, config.seq_len - config.max_tokens)
    train, left_out = read_prompts(config.prompts, chat, room)
    if config.heldout is not None:
        heldout, _ = read_prompts(config.heldout, chat, room)
        known = {prompt.ids for prompt in heldout}
        kept = [prompt for prompt in train if prompt.ids not in known]
        left_out = {**left_out, "prompt is in the held-out file": len(train) - len(kept)}
    else:
        cut = int(config.heldout_fraction * 2**32)
        apart = {prompt.ids: int(sha256_json(list(prompt.ids))[:8], 16) < cut for prompt in train}
        heldout = [prompt for prompt in train if apart[prompt.ids]]
        kept = [prompt for prompt in train if not apart[prompt.ids]]
    if not kept:
        raise CauserieError("CAU-4105", "no prompt is left to train on", where=str(config.prompts), fix="give more")
    return kept, heldout[: config.measure_rows], {"prompts": len(kept), "heldout": len(heldout), **left_out}


def measure(sampler: Sampler, prompts: Sequence[Prompt], config: GrpoConfig) -> dict[str, float]:
    """Greedy answers to held-out prompts: mean reward, share with the full reward 1 or more, mean length, cut share."""
    if not prompts:
        return {}
    found = sampler.sample(prompts, 1, [seed_for(config.seed, "measure")] * len(prompts), greedy=True)
    answers = [sampler.answer(p, item.ids, item.finish != "stop") for p, item in zip(prompts, found, strict=True)]
    rewards = sampler.judge(answers)
    solved = sum(reward >= 1 for reward in rewards) / len(rewards)
    error = 1.96 * math.sqrt(max(solved * (1 - solved), 1e-12) / len(rewards))
    return {
        "reward": sum(rewards) / len(rewards),
        "solved": solved,
        "solved_error": error,
        "length": sum(len(answer.ids) for answer in answers) / len(answers),
        "truncated": sum(answer.truncated for answer in answers) / len(answers),
        "prompts": float(len(prompts)),
    }
