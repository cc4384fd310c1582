"""What a job's training is: the trainer's command, its settings, its input files, the name of the model."""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from causerie.core import write_atomic
from causerie.serve.fine_tuning.training_files import TrainingRows, jsonl
from causerie.serve.objects import Body

EPOCHS: Final = 3
LORA_RANK: Final = 16
LORA_FROM: Final = 100 * 2**20
"""Bytes of weights from which `auto` trains an adapter instead of all weights."""
SEQ_LEN: Final = 512
COMMANDS: Final = {"supervised": "sft", "dpo": "dpo", "reinforcement": "dpo"}
"""The trainer's command for each method; reinforcement learns from pairs that its grader ordered."""


@dataclass(frozen=True)
class Plan:
    """A training: its command line, where things are, and the settings as told in the job."""

    command: tuple[str, ...]
    folder: Path
    workspace: Path
    kind: str
    artifact_name: str
    model_name: str
    hyperparameters: dict[str, Any]

    @property
    def log(self) -> Path:
        """What the trainer says on stderr."""
        return self.folder / "log.txt"

    @property
    def written(self) -> Path:
        """A file that is there once all inputs are."""
        return self.folder / "ready"

    def run_folder(self) -> Path | None:
        """The run's folder, once it is there."""
        return next(iter((self.workspace / "runs").glob(f"{self.kind}-{self.artifact_name}-????????")), None)


def plan_of(job: Body, base: Path, workspace: Path, rows: int) -> Plan:
    """The training of a job; the same job always gives the same plan.

    Args:
        base: folder of the model to start from.
        rows: rows of the training file.
    """
    method = job["method"]
    asked = (method.get(method["type"]) or {}).get("hyperparameters") or {}
    settings = {name: value for name, value in asked.items() if value != "auto"}
    kind = COMMANDS[method["type"]]
    folder = workspace / "fine_tuning" / job["id"]
    epochs = settings.get("n_epochs", EPOCHS)
    batch = settings.get("batch_size", max(1, min(8, rows // 8 or 1)))
    scale = settings.get("learning_rate_multiplier", 1.0)
    rank = settings.get("lora_rank", LORA_RANK if _weight_bytes(base) >= LORA_FROM else 0)
    name = "ft-" + job["id"].rpartition("_")[2]
    flags = {
        "model": base,
        "name": name,
        "epochs": epochs,
        "batch-size": batch,
        "lr-scale": scale,
        "lora-rank": rank,
        "seq-len": settings.get("seq_len", SEQ_LEN),
        "seed": job["seed"],
        "workspace": workspace,
    }
    if kind == "sft":
        flags["data"] = folder / "train.jsonl"
        if job["validation_file"]:
            flags["heldout"] = folder / "heldout.jsonl"
    else:
        flags["preferences"] = folder
        flags["beta"] = settings.get("beta", 0.1)
    command = [sys.executable, "-m", "causerie", "train", kind]
    for flag, value in flags.items():
        command += [f"--{flag}", str(value)]
    told = {"batch_size": batch, "learning_rate_multiplier": scale, "n_epochs": epochs}
    return Plan((*command, "--json"), folder, workspace, kind, name, model_name(job), told)


def model_name(job: Body) -> str:
    """The name of the model that a job makes: its base, its suffix, and the job's own letters."""
    base = job["model"].rpartition("@")[0] or job["model"]
    parts = ["ft", _slug(base)[:24], _slug(job.get("suffix") or "")[:20], job["id"].rpartition("_")[2][:8]]
    return "-".join(part.strip("-.") for part in parts if part)


def _slug(text: str) -> str:
    """Lower-case letters without accents, digits and dashes."""
    bare = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9.]+", "-", bare).strip("-.")


def write_inputs(plan: Plan, rows: TrainingRows, held_out: TrainingRows | None) -> None:
    """Write the rows where the command reads them."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    names = ("train.jsonl", "heldout.jsonl") if plan.kind == "sft" else ("pairs.jsonl", "heldout-pairs.jsonl")
    write_atomic(plan.folder / names[0], jsonl(rows.rows))
    if held_out is not None:
        write_atomic(plan.folder / names[1], jsonl(held_out.rows))
    write_atomic(plan.written, b"")


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
