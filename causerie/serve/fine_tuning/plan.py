"""What a job's training is: the trainer's command, its settings, its input files, the name of the model."""

from __future__ import annotations

import contextlib
import math
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, read_json, write_atomic, write_json
from causerie.serve.fine_tuning.shapes import Method
from causerie.serve.fine_tuning.training_files import TrainingRows, jsonl
from causerie.serve.graders.local import is_local
from causerie.serve.objects import Body
from causerie.text import load_chat_format

EPOCHS: Final = 3
LORA_RANK: Final = 16
LORA_FROM: Final = 100 * 2**20
"""Bytes of weights from which `auto` trains an adapter instead of all weights."""
SEQ_LEN: Final = 512
COUNTED: Final = 2_000
"""Conversations whose tokens are counted, at most, to find how many share a row of the trainer."""
CHECKPOINTS: Final = 3
"""Models that a job of several epochs leaves, the last included: after each of its last epochs, about."""
ANSWERS: Final = 8
"""Answers drawn for a prompt where `compute_multiplier` is auto or 1."""
PROMPTS: Final = 16
"""Prompts of a rollout where `batch_size` is auto."""
LENGTH: Final = 256
"""Tokens of a sampled answer, at most, where the rows leave room for so many."""


@dataclass(frozen=True)
class Plan:
    """A training: the flags of its command, where things are, and the settings as told in the job."""

    flags: Mapping[str, Any]
    folder: Path
    workspace: Path
    kind: str
    artifact_name: str
    model_name: str
    hyperparameters: dict[str, Any]

    @property
    def command(self) -> tuple[str, ...]:
        """Its command line."""
        told = [word for flag, value in self.flags.items() for word in (f"--{flag}", str(value))]
        return (sys.executable, "-m", "causerie", "train", self.kind, *told, "--json")

    @property
    def log(self) -> Path:
        """What the trainer says on stderr."""
        return self.folder / "log.txt"

    @property
    def written(self) -> Path:
        """A file that is there once all inputs are."""
        return self.folder / "ready"

    def run_folders(self) -> list[Path]:
        """The folders of its runs, the latest last: an upgrade of the trainer begins another one."""
        found = (self.workspace / "runs").glob(f"{self.kind}-{self.artifact_name}-????????/run.json")
        return [state.parent for state in sorted(found, key=lambda state: (state.stat().st_mtime_ns, state))]

    def run_folder(self) -> Path | None:
        """The latest run's folder, once it is there."""
        return next(reversed(self.run_folders()), None)

    def goes_on(self) -> Plan:
        """The same training from the last checkpoint of its latest run that has one, whatever code made that."""
        made = [folder for folder in self.run_folders() if any(folder.glob("checkpoints/*/manifest.json"))]
        return replace(self, flags={**self.flags, "resume": made[-1]}) if made else self

    def write(self) -> None:
        """Keep the flags, so that the job goes on with them whatever a later version would plan."""
        flags = {name: self._told(value) for name, value in self.flags.items()}
        begun = {"kind": self.kind, "flags": flags, "hyperparameters": self.hyperparameters}
        write_json(self.folder / "begun.json", begun)

    def _told(self, value: Any) -> Any:
        if not isinstance(value, Path):
            return value
        inside = value.is_relative_to(self.workspace)
        return {"workspace": inside, "path": str(value.relative_to(self.workspace) if inside else value)}

    def as_begun(self) -> Plan:
        """This plan with the flags that were kept, if they were; a model that is gone is looked for anew."""
        kept = self.folder / "begun.json"
        if not kept.is_file():
            return self
        begun = read_json(kept)
        flags = {
            name: (self.workspace / value["path"] if value["workspace"] else Path(value["path"]))
            if isinstance(value, dict)
            else value
            for name, value in begun["flags"].items()
        }
        if not flags["model"].is_dir():
            flags["model"] = self.flags["model"]
        return replace(self, kind=begun["kind"], flags=flags, hyperparameters=begun["hyperparameters"])


def plan_of(job: Body, base: Path, workspace: Path, rows: int, tokens: Sequence[int] = ()) -> Plan:
    """The training of a job; the same job always gives the same plan.

    Args:
        base: folder of the model to start from.
        rows: rows of the training file.
        tokens: of a supervised file, the tokens of its first rows.
    """
    method = job["method"]
    asked = (method.get(method["type"]) or {}).get("hyperparameters") or {}
    settings = {name: value for name, value in asked.items() if value != "auto"}
    kind = command_of(method)
    folder = workspace / "fine_tuning" / job["id"]
    epochs = settings.get("n_epochs", EPOCHS)
    usual = min(PROMPTS, rows) if kind == "grpo" else max(1, min(8, rows // 8 or 1))
    batch = settings.get("batch_size", usual)
    scale = settings.get("learning_rate_multiplier", 1.0)
    rank = settings.get("lora_rank", LORA_RANK if _weight_bytes(base) >= LORA_FROM else 0)
    seq_len = settings.get("seq_len", SEQ_LEN)
    together = batch
    if tokens:
        together, seq_len = row_shape(batch, tokens, settings.get("seq_len"))
    name = "ft-" + job["id"].rpartition("_")[2]
    flags = {
        "model": base,
        "name": name,
        "epochs": epochs,
        "batch-size": together,
        "lr-scale": scale,
        "lora-rank": rank,
        "seq-len": seq_len,
        "seed": job["seed"],
        "snapshots": max(0, min(CHECKPOINTS, math.ceil(epochs)) - 1),
        "workspace": workspace,
    }
    if kind == "sft":
        flags["data"] = folder / "train.jsonl"
        if job["validation_file"]:
            flags["heldout"] = folder / "heldout.jsonl"
    elif kind == "grpo":
        flags |= _grpo_flags(folder, settings, flags["seq-len"], bool(job["validation_file"]))
    else:
        flags["preferences"] = folder
        flags["beta"] = settings.get("beta", 0.1)
    told = {"batch_size": batch, "learning_rate_multiplier": scale, "n_epochs": epochs}
    return Plan(flags, folder, workspace, kind, name, model_name(job), told)


def row_shape(batch: int, tokens: Sequence[int], seq_len: int | None = None) -> tuple[int, int]:
    """Rows of the trainer in an update and their length, such that about `batch` conversations make an update.

    The trainer puts several short conversations into one row; its batch size counts rows, OpenAI's conversations.

    Args:
        batch: conversations in an update.
        tokens: of the first conversations; with more than `COUNTED` of them the length is not fitted to the longest.
        seq_len: the rows' length where it was asked for.
    """
    wanted = batch * sum(tokens) / len(tokens)
    if seq_len is None:
        longest = max(tokens) if len(tokens) < COUNTED else SEQ_LEN
        seq_len = min(SEQ_LEN, max(longest, math.ceil(wanted), 2))
    return max(1, round(wanted / seq_len)), seq_len


def count_tokens(base: Path, rows: TrainingRows) -> list[int]:
    """Tokens of the first conversations as a model reads them; none for a model that cannot chat."""
    found: list[int] = []
    with contextlib.suppress(CauserieError):  # the trainer says what does not fit, with its line
        chat = load_chat_format(base)
        found.extend(len(chat.render(row["messages"]).ids) for row in rows.rows[:COUNTED])
    return found


def command_of(method: Body) -> str:
    """The trainer's command for a job's method.

    Reinforcement is GRPO where the grader can be computed in the trainer's process; a grader that asks a model orders
    the served model's answers once instead, and its pairs train DPO.
    """
    if method["type"] != "reinforcement":
        return "sft" if method["type"] == "supervised" else "dpo"
    grader = Method.model_validate(method).reinforcement
    return "grpo" if grader is not None and is_local(grader.grader) else "dpo"


def _grpo_flags(folder: Path, settings: dict[str, Any], seq_len: int, heldout: bool) -> dict[str, Any]:
    factor = settings.get("compute_multiplier", 1.0)
    flags: dict[str, Any] = {
        "prompts": folder / "train.jsonl",
        "grader": folder / "grader.json",
        "rewards": "graded",
        "group-size": max(2, min(64, round(ANSWERS * factor))),
        "max-tokens": max(1, min(LENGTH, seq_len // 2)),
        "beta": settings.get("beta", 0.0),
        "heldout-fraction": 0.0 if heldout else 0.1,
    }
    if heldout:
        flags["heldout"] = folder / "heldout.jsonl"
    if "eval_interval" in settings:
        flags["eval-every"] = settings["eval_interval"]
    if "eval_samples" in settings:
        flags["measure-rows"] = settings["eval_samples"]
    return flags


def model_name(job: Body) -> str:
    """The name of the model that a job makes: its base, its suffix, and the job's own letters."""
    base = job["model"].rpartition("@")[0] or job["model"]
    parts = ["ft", _slug(base)[:24], _slug(job.get("suffix") or "")[:20], job["id"].rpartition("_")[2][:8]]
    return "-".join(part.strip("-.") for part in parts if part)


def _slug(text: str) -> str:
    """Lower-case letters without accents, digits and dashes."""
    bare = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9.]+", "-", bare).strip("-.")


def write_inputs(plan: Plan, rows: TrainingRows, held_out: TrainingRows | None, grader: Body | None = None) -> None:
    """Write the rows, and the grader that judges answers to them, where the command reads them."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    names = ("pairs.jsonl", "heldout-pairs.jsonl") if plan.kind == "dpo" else ("train.jsonl", "heldout.jsonl")
    as_read = _as_prompt if plan.kind == "grpo" else dict
    for name, part in zip(names, (rows, held_out), strict=True):
        if part is not None:
            write_atomic(plan.folder / name, jsonl([as_read(row) for row in part.rows]))
    if plan.kind == "grpo":
        write_json(plan.folder / "grader.json", grader or {})
    plan.write()
    write_atomic(plan.written, b"")


def _as_prompt(row: Body) -> Body:
    """A row as `causerie train grpo` reads it; the grader's templates see all of it but `prompt`."""
    return {**row, "prompt": row["messages"]}


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
