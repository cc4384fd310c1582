"""The models that a job makes: those it kept on the way, which sleep until they are asked for, and its result.

As with OpenAI's, a model from on the way is called `NAME:ckpt-step-N`. It answers, is shared, is deleted and is trained
further like any other; it stays when the job fails or is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from causerie.serve.fine_tuning.plan import Plan
from causerie.serve.models import FINE_TUNED
from causerie.serve.objects import Body
from causerie.serve.routes import Office
from causerie.store import new_id

CHECKPOINT: Final = "fine_tuning.job.checkpoint"
SNAPSHOTS: Final = "snapshots/step-*/manifest.json"
"""Where the trainer keeps models from on the way, in its run's folder; the manifest is written last."""


async def add_checkpoint(office: Office, owner: str, job: str, name: str, step: int, figures: dict[str, float]) -> None:
    """Tell of one model of a job."""
    body: Body = {
        "id": new_id("ftckpt"),
        "object": CHECKPOINT,
        "created_at": int(time.time()),
        "fine_tuning_job_id": job,
        "fine_tuned_model_checkpoint": name,
        "step_number": step,
        "metrics": figures,
    }
    await office.objects.add(CHECKPOINT, owner, body, parent=job)


async def keep_models_on_the_way(
    office: Office, owner: str, job: str, plan: Plan, told: Sequence[Body], until: int | None = None
) -> list[str]:
    """Offer the models that the trainer has kept so far and that are not offered yet; their names.

    Args:
        told: the job's events, from which the figures at a step are read.
        until: the last step to look at; None: all.
    """
    found = await asyncio.to_thread(_kept, plan)
    new = []
    for folder in found:
        step = _step_of(folder)
        if until is not None and step > until:
            break
        name = f"{plan.model_name}:ckpt-step-{step}"
        if await office.objects.find(FINE_TUNED, owner, name) is not None:
            continue
        place = folder.relative_to(plan.workspace).as_posix()
        body = {"id": name, "object": FINE_TUNED, "status": "asleep", "job": job, "artifact": place, "number": None}
        await office.objects.add(FINE_TUNED, owner, body)
        office.pool.offer(name, folder, owner)
        await add_checkpoint(office, owner, job, name, step, figures_at(step, told))
        new.append(name)
    return new


def _kept(plan: Plan) -> list[Path]:
    return sorted((found.parent for run in plan.run_folders() for found in run.glob(SNAPSHOTS)), key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


def figures_at(step: int, told: Sequence[Body]) -> dict[str, float]:
    """What a job's events say of its state after some updates: the last update's loss, the last rollout's reward."""
    rows = [event["data"] for event in told if event["data"] and event["data"].get("step", step + 1) <= step]
    rows.sort(key=lambda row: row["step"])
    figures: dict[str, float] = {"step": float(step)}
    for name, of in (("train_loss", "learning_rate"), ("train_mean_reward", "mean_length")):
        values: list[Any] = [row[name] for row in rows if name in row and of in row]
        if values:
            figures[name] = float(values[-1])
    return figures


def figures_at_end(metrics: dict[str, Any], told: Sequence[Body]) -> dict[str, float]:
    """The figures of a job's result: those of its last update, and what was measured on the validation file."""
    figures = figures_at(int(metrics.get("steps", 0)), told)
    measured = (metrics.get("after") or {}).get("reward")
    if "train_mean_reward" in figures and isinstance(measured, int | float):
        figures |= {"valid_mean_reward": float(measured), "full_valid_mean_reward": float(measured)}
    loss = metrics.get("answer_loss_after")
    if isinstance(loss, int | float):
        figures |= {"valid_loss": float(loss), "full_valid_loss": float(loss)}
    return figures
