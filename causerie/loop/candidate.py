"""Making a round's candidate: which objective, all weights or an adapter, for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causerie.align import DpoConfig, KtoConfig, dpo, kto
from causerie.core import Artifact, Run, read_json
from causerie.hub import ResolvedModel
from causerie.loop.config import ImproveConfig
from causerie.loop.material import Method, count_rows
from causerie.loop.rewarded import train_by_reward
from causerie.model import base_folder, shape_from_hf
from causerie.train import SftConfig, sft

ADAPTER_FROM_PARAMETERS = 50_000_000
ADAPTER_RANK = 16
MINUTES_FOR_BIG = 15.0
IMPORTED_FOR_BIG = 160
"""Imported votes that a round of a big model uses: about five minutes on two cores."""


def train_candidate(
    config: ImproveConfig, workspace: Path, incumbent: ResolvedModel, votes: Artifact, method: Method, run: Run
) -> Artifact:
    """Train a candidate from the incumbent; its progress goes to the round's run."""
    rank = _rank(config, incumbent)
    shared: dict[str, Any] = {
        "model": incumbent.path,
        "name": config.model,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "lora_rank": rank,
        "seed": config.seed,
    }
    minutes = config.minutes if config.minutes >= 0 else (MINUTES_FOR_BIG if is_big(incumbent) else 0)
    given = {"lr": config.lr or None, "steps": config.steps or None, "minutes": minutes or None}
    shared |= {name: value for name, value in given.items() if value is not None}
    part = "an adapter" if rank or incumbent.kind == "adapter" else "all weights"
    metrics = votes.manifest.metrics
    rows = {"dpo": f"{metrics['pairs']} pairs", "kto": f"{count_rows(votes)} votes", "sft": f"{metrics['sft']} edits"}
    rows["grpo"] = f"a reward model of {rows['dpo']}"
    run.log("stage", name="train", text=f"{method} on {rows[method]}, {part}")
    if method == "sft":
        return _fine_tune(shared, workspace, incumbent, votes)
    if method == "grpo":
        room = {"max_tokens": config.guard_max_tokens, "seq_len": _longest(incumbent)}
        return train_by_reward(shared, workspace, votes, run, beta=config.beta, big=is_big(incumbent), **room)
    shared |= {"preferences": votes.path, "beta": config.beta}
    if method == "dpo":
        return dpo(DpoConfig(**shared), workspace, events=run.log)
    return kto(KtoConfig(**shared), workspace, events=run.log)


def _fine_tune(shared: dict[str, Any], workspace: Path, incumbent: ResolvedModel, votes: Artifact) -> Artifact:
    held_out = votes.path / "heldout-sft.jsonl"
    judged: dict[str, Any] = {"heldout": held_out} if held_out.stat().st_size else {}
    length = min(512, _longest(incumbent))
    settings = SftConfig(**shared, **judged, data=(votes.path / "sft.jsonl",), seq_len=length, compile="off")
    return sft(settings, workspace)


def max_imported(config: ImproveConfig, incumbent: ResolvedModel) -> int:
    """Imported votes that the round may use; 0 means all."""
    if config.max_imported >= 0:
        return config.max_imported
    return IMPORTED_FOR_BIG if is_big(incumbent) else 0


def is_big(incumbent: ResolvedModel) -> bool:
    """Whether the model is one for adapters: an adapter already, or of 50 million parameters and more."""
    if incumbent.kind == "adapter":
        return True
    return shape_from_hf(read_json(incumbent.path / "config.json")).n_params >= ADAPTER_FROM_PARAMETERS


def _rank(config: ImproveConfig, incumbent: ResolvedModel) -> int:
    """Rank of a new adapter; 0 for all weights, and for an incumbent that is an adapter already (it is trained on)."""
    if incumbent.kind == "adapter":
        return 0
    if config.lora_rank >= 0:
        return config.lora_rank
    return ADAPTER_RANK if is_big(incumbent) else 0


def _longest(incumbent: ResolvedModel) -> int:
    """Tokens of a prompt with its answer, at most."""
    return min(1024, shape_from_hf(read_json(_weights(incumbent.path) / "config.json")).max_seq_len)


def _weights(folder: Path) -> Path:
    return base_folder(folder) if (folder / "adapter_config.json").is_file() else folder
