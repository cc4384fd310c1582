"""A candidate by way of a reward model: people's choices teach a judge, and the judge teaches the model (GRPO)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from causerie.align import GrpoConfig, RewardConfig, grpo, reward
from causerie.core import Artifact, Run, read_jsonl, sha256_json, write_jsonl

GROUP = 8
"""Answers sampled to each prompt."""


def train_by_reward(
    shared: dict[str, Any],
    workspace: Path,
    votes: Artifact,
    run: Run,
    *,
    beta: float,
    max_tokens: int,
    seq_len: int,
    big: bool,
) -> Artifact:
    """Train a reward model on the round's pairs, then the incumbent on its judgement of answers to the same prompts.

    The prompts are those of the training votes; the candidate is measured on those of the held-out ones. Reward model
    and candidate begin from the incumbent, so they read the same tokens.

    Args:
        shared: settings of any alignment run (model, name, epochs, seed ...).
        workspace: where artifacts are.
        votes: the round's preferences.
        run: the round's run; the prompts are kept beside its events.
        beta: weight of the KL term that holds the candidate to the incumbent.
        max_tokens: longest sampled answer.
        seq_len: longest prompt with an answer.
        big: whether the reward model is the incumbent's frozen trunk with a head (else all weights are trained).

    Raises:
        CauserieError: CAU-4101 when there is no usable pair, CAU-4105 without usable prompts.
    """
    how: dict[str, Any] = {"head_only": True, "lora_rank": 0} if big else {}
    judge = reward(
        RewardConfig(**{**shared, **how, "name": f"{shared['name']}-reward"}, preferences=votes.path, seq_len=seq_len),
        workspace,
        events=run.log,
    )
    after = judge.manifest.metrics["after"]
    told = f"{after['heldout_accuracy']:.0%} of the held-out pairs" if "heldout_accuracy" in after else "no pair apart"
    run.log("stage", name="reward", text=f"the reward model ranks as people did in {told}")
    files = {"prompts": ("prompts.jsonl", ""), "heldout": ("heldout-prompts.jsonl", "heldout-")}
    written = {name: _write_prompts(run.path / file, votes, side) for name, (file, side) in files.items()}
    given: dict[str, Any] = {name: path for name, path in written.items() if path is not None}
    settings = GrpoConfig(
        **{**shared, **given}, rewards=("learned",), reward_model=judge.path, group_size=GROUP,
        max_tokens=max_tokens, seq_len=seq_len, beta=beta,
    )  # fmt: skip
    return grpo(settings, workspace, events=run.log)


def _write_prompts(path: Path, votes: Artifact, side: str) -> Path | None:
    """The prompts of one side of the split, each once; None when there is none."""
    rows = list(_prompts(votes, (f"{side}pairs", f"{side}unpaired")))
    write_jsonl(path, rows)
    return path if rows else None


def _prompts(votes: Artifact, files: Iterable[str]) -> Iterable[dict[str, Any]]:
    seen: set[str] = set()
    for file in files:
        for row in read_jsonl(votes.path / f"{file}.jsonl"):
            key = sha256_json(row["prompt"])
            if key not in seen:
                seen.add(key)
                yield {"prompt": row["prompt"]}
