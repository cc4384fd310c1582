"""Seconds per step of SFT, DPO, KTO, reward and GRPO, beside TRL on the same weights and token ids, on two cores.

First the losses of the first five steps of both are compared (parity), then the time. TRL runs twice: as it comes
(gradient checkpointing on, reference computed in each step) and tuned (checkpointing off, reference precomputed). Rows
have ragged lengths; `-long` rows have prompts three times as long as their completions. `sft` is what `causerie train sft` runs (conversations packed
into rows of 512), `sft-shared` the same rows on the path of the preference objectives.

    .venv/bin/python bench/align_speed.py --peer-python /path/to/venv/bin/python [--quick] [--tasks dpo-long,grpo]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from causerie.align import (
    DpoConfig,
    Group,
    KtoConfig,
    RewardConfig,
    dpo_objective,
    kto_objective,
    layout,
    reward_objective,
    save_reward,
    score_groups,
)
from causerie.core import open_run, read_events
from causerie.model import ModelShape, Transformer, init_model, load_model, save_model
from causerie.train import Batch, LossParts, TrainSettings, fit
from causerie.train.chat_rows import Row, lay_out, pack_rows
from causerie.train.finetuning import answer_loss, as_batch

TASKS = ("sft", "sft-shared", "dpo-short", "dpo-long", "kto-long", "reward-long", "grpo")
SHAPE = {"family": "qwen3", "n_layer": 8, "n_embd": 256, "n_head": 8, "n_kv_head": 4, "head_dim": 32, "ffn_dim": 768}
PARITY = 5


@dataclass(frozen=True)
class InOrder:
    """Batches of rows in the order of the file."""

    groups: Sequence[Group]
    values: Mapping[str, Tensor]
    size: int

    @cached_property
    def fingerprint(self) -> str:
        """One run, one fingerprint."""
        return str(len(self.groups))

    def micro_batches(self, step: int) -> list[Batch]:
        """The rows of a step as one batch."""
        rows = slice(step * self.size, (step + 1) * self.size)
        return [{**layout(self.groups[rows]), **{name: value[rows] for name, value in self.values.items()}}]


@dataclass(frozen=True)
class PackedInOrder:
    """The same for fine-tuning: the rows of a step packed as `causerie train sft` packs them."""

    rows: Sequence[Any]
    size: int
    seq_len: int = 512

    @cached_property
    def fingerprint(self) -> str:
        """One run, one fingerprint."""
        return str(len(self.rows))

    def micro_batches(self, step: int) -> list[Batch]:
        """The conversations of a step, packed, as one batch."""
        part = self.rows[step * self.size : (step + 1) * self.size]
        chats = [Row((*p, *c), (0,) * len(p) + (1,) * len(c), "") for p, c in part]
        bins = pack_rows([len(chat.ids) - 1 for chat in chats], self.seq_len, range(len(chats)))
        return [as_batch(lay_out([[chats[i] for i in group] for group in bins], self.seq_len))]


def main() -> None:
    """Run every task on both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=os.environ.get("CAUSERIE_TRL_PYTHON"))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    settings = {
        "threads": given.threads, "steps": given.steps, "batch": 8, "lr": 1e-5, "vocabulary": 8192, "bf16": given.bf16,
        "prompts": 8, "group": 8, "new_tokens": 64, "scale": 1.0,
    }  # fmt: skip
    if given.quick:
        settings |= {"steps": PARITY, "prompts": 2, "new_tokens": 8, "scale": 0.125, "batch": 4}
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, settings)
        results = [measure(folder, task, settings, given.peer_python) for task in given.tasks.split(",")]
    sys.stdout.write(table(results) + "\n" + json.dumps({"settings": settings, "results": results}) + "\n")


def prepare(folder: Path, settings: Mapping[str, Any]) -> None:
    """Weights, rows and settings that both sides read."""
    shape = ModelShape(**SHAPE, vocab_size=settings["vocabulary"], max_seq_len=2048)  # type: ignore[arg-type]
    model = init_model(shape, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    for name in ("model", "reward"):
        (folder / name).mkdir()
    save_model(model, folder / "model", None)
    from causerie.align.reward_model import add_score

    add_score(model)
    write_reward(model, folder)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "rows.json").write_text(json.dumps({task: rows_of(task, settings) for task in TASKS}))


def write_reward(model: Transformer, folder: Path) -> None:
    """The reward model's folder; it needs a tokenizer beside it."""
    from causerie.text import train_bpe

    source = folder / "tokenizer"
    source.mkdir()
    train_bpe(["a b c"] * 3, 300).save(source)
    save_reward(model, folder / "reward", source)
    config = json.loads((folder / "reward" / "config.json").read_text())
    (folder / "reward" / "config.json").write_text(json.dumps({**config, "pad_token_id": 0, "eos_token_id": 1}))


def rows_of(task: str, settings: Mapping[str, Any]) -> list[Any]:
    """Random ids; every completion ends with id 1."""
    rng, scale = random.Random(task.removesuffix("-shared")), settings["scale"]
    prompt, answer = (384, 128) if task.endswith("long") else (128, 128)

    def ids(longest: float) -> list[int]:
        return [rng.randrange(3, settings["vocabulary"]) for _ in range(rng.randint(int(longest / 2), int(longest)))]

    task = task.removesuffix("-shared")
    if task == "grpo":
        return [ids(256 * scale) for _ in range(settings["prompts"] * settings["steps"])]
    count, completions = settings["batch"] * settings["steps"], 1 if task in ("sft", "kto-long") else 2
    rows: list[Any] = [
        [ids(prompt * scale), *([*ids(answer * scale), 1] for _ in range(completions))] for _ in range(count)
    ]
    return [[*row, number % 2 == 0] for number, row in enumerate(rows)] if task == "kto-long" else rows


def measure(folder: Path, task: str, settings: Mapping[str, Any], peer: str | None) -> dict[str, Any]:
    """One task on all sides: ours, TRL as it comes, TRL tuned."""
    rows = json.loads((folder / "rows.json").read_text())[task]
    found = {"task": task, "ours": ours(folder, task, rows, settings)}
    for mode in ("tuned", "default") if peer else ():
        command = [str(peer), str(Path(__file__).with_name("align_speed_trl.py")), str(folder), task, mode]
        environment = {**os.environ, "OMP_NUM_THREADS": str(settings["threads"]), "PYTHONPATH": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        last = done.stdout.strip().rpartition("\n")[2]
        found[mode] = json.loads(last) if done.returncode == 0 else {"failed": done.stderr[-2000:]}
    return found


def ours(folder: Path, task: str, rows: Sequence[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Our own loop on the same rows."""
    if task == "grpo":
        return our_grpo(folder, rows, settings)
    kind = task.partition("-")[0]
    if kind == "reward":
        from causerie.align import load_reward

        model = load_reward(folder / "reward")
    else:
        model = load_model(folder / "model")
    began = time.perf_counter()
    batches: InOrder | PackedInOrder
    if task == "sft":
        batches, objective = PackedInOrder(rows, settings["batch"]), answer_loss
    else:
        batches, objective = our_batches(kind, model, rows, settings)
    with tempfile.TemporaryDirectory() as place, open_run(Path(place), kind, "bench", "key", {}) as run:
        fit(model, objective, batches, our_settings(settings), run)
        steps = [event for event in read_events(run.path) if event["event"] == "step"]
    return {
        "losses": [step["loss"] for step in steps],
        "grad_norms": [step["grad_norm"] for step in steps],
        "seconds": [step["step_seconds"] for step in steps],
        "cpu_seconds": [step["cpu_seconds"] for step in steps],
        "whole": time.perf_counter() - began,
    }


def our_settings(settings: Mapping[str, Any]) -> TrainSettings:
    """The same optimiser, rate and clip as on the other side."""
    return TrainSettings(
        steps=settings["steps"], batch_size=settings["batch"], optimizer="adamw", lr=settings["lr"], warmup=0,
        decay_fraction=0.0, weight_decay=0.0, compile="off", precision="bf16" if settings["bf16"] else "fp32",
    )  # fmt: skip


def our_batches(kind: str, model: Transformer, rows: Sequence[Any], settings: Mapping[str, Any]) -> tuple[InOrder, Any]:
    """Rows and objective of a task."""
    size, nowhere = settings["batch"], Path()
    weight = torch.ones(len(rows))
    if kind == "sft":
        return InOrder([Group(p, (c,)) for p, c in rows], {}, size), sft_objective
    if kind == "kto":
        strangers = [rows[i - 1 if i % size else i + size - 1][1] for i in range(len(rows))]
        groups = [Group(row[0], (row[1], stranger)) for row, stranger in zip(rows, strangers, strict=True)]
        values = {"reference": score_groups(model, groups), "weight": weight}
        values["liked"] = torch.tensor([bool(row[2]) for row in rows])
        config = KtoConfig(model=nowhere, preferences=nowhere, liked_weight=1.0, disliked_weight=1.0)
        return InOrder(groups, values, size), kto_objective(config, 1.0, 1.0)
    groups = [Group(p, (c, r)) for p, c, r in rows]
    if kind == "reward":
        values = {"ranks": torch.tensor([[0, 1]] * len(rows)), "weight": weight}
        return InOrder(groups, values, size), reward_objective(
            RewardConfig(model=nowhere, preferences=nowhere, centring=0.0)
        )
    values = {"reference": score_groups(model, groups), "weight": weight}
    return InOrder(groups, values, size), dpo_objective(DpoConfig(model=nowhere, preferences=nowhere, nll_weight=0.0))


def sft_objective(model: Transformer, batch: Batch) -> LossParts:
    """Mean over the completion tokens of a batch, as in fine-tuning."""
    from causerie.align import completion_token_log_probs

    values = completion_token_log_probs(model, batch)
    return LossParts(-values.sum(), values.numel(), seen=batch["ids"].numel())


def our_grpo(folder: Path, rows: Sequence[Sequence[int]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """GRPO with the engine, end to end."""
    from causerie.align import GrpoConfig, grpo_objective
    from causerie.align.rollouts import GrpoBatches, Prompt, Sampler

    class Words:
        stop_ids = (1,)

        class tokenizer:
            @staticmethod
            def decode(ids: Sequence[int]) -> str:
                return " ".join(map(str, ids))

    def even(answers: Sequence[Any]) -> list[float]:
        return [sum(n % 2 == 0 for n in answer.ids) / max(1, len(answer.ids)) for answer in answers]

    model = load_model(folder / "model")
    config = GrpoConfig(
        model=folder, prompts=folder, batch_size=settings["prompts"], group_size=settings["group"],
        max_tokens=settings["new_tokens"], variant="dapo",
    )  # fmt: skip
    sampler = Sampler(model, Words(), config, [(even, 1.0)])  # type: ignore[arg-type]
    gap = [0.0]
    with tempfile.TemporaryDirectory() as place, open_run(Path(place), "grpo", "bench", "key", {}) as run:
        batches = GrpoBatches([Prompt(tuple(ids), {}) for ids in rows], sampler, config, run, None, gap)
        fit(model, grpo_objective(config, gap), batches, our_settings(settings), run)
        events = list(read_events(run.path))
    steps = [event for event in events if event["event"] == "step"]
    rollouts = [event for event in events if event["event"] == "rollout"]
    return {
        "losses": [step["loss"] for step in steps],
        "grad_norms": [step["grad_norm"] for step in steps],
        "seconds": [step["step_seconds"] for step in steps],
        "cpu_seconds": [step["cpu_seconds"] for step in steps],
        "sampling_seconds": [event["sampling_seconds"] for event in rollouts],
        "log_prob_gap": gap[0],
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The figures for people: medians of the steps after the third."""
    lines = ["task          parity   ours s   TRL tuned (ratio)   TRL default (ratio)   by CPU time"]
    for row in results:
        line = f"{row['task']:<12}  "
        mine, cpu = middle(row["ours"]["seconds"]), middle(row["ours"]["cpu_seconds"])
        tuned = row.get("tuned", {})
        if "losses" in tuned and row["task"] != "grpo":
            pairs = list(zip(row["ours"]["losses"][:PARITY], tuned["losses"][:PARITY], strict=True))
            line += f"{max(abs(a - b) for a, b in pairs):7.1e}"
        else:
            line += "      -"
        line += f"  {mine:6.3f}"
        for mode, width in (("tuned", 9), ("default", 11)):
            other = row.get(mode, {})
            line += (
                f"   {middle(other['seconds']):{width}.3f} ({middle(other['seconds']) / mine:4.2f}x)"
                if "seconds" in other
                else "   -"
            )
        if "cpu_seconds" in tuned:
            line += f"   {middle(tuned['cpu_seconds']) / cpu:4.2f}x"
        lines.append(line)
    return "\n".join(lines)


def middle(values: Sequence[float]) -> float:
    """Median, the first three steps left out where there are more."""
    return statistics.median(values[3:] or values)


if __name__ == "__main__":
    main()
