"""Running fine-tuning jobs: one at a time, each `causerie train ...` in a process of its own.

A job's process is told to stop by SIGTERM, saves its state, and the very same command goes on from there: after a
pause, and after the server itself was ended. What the run tells (`events.jsonl`) becomes the job's events.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, open_artifact, say
from causerie.hub import get_version, register
from causerie.serve import files
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.fine_tuning.checkpoints import add_checkpoint, figures_at_end, keep_models_on_the_way
from causerie.serve.fine_tuning.child import Child, Ended
from causerie.serve.fine_tuning.plan import Plan, count_tokens, plan_of, write_inputs
from causerie.serve.fine_tuning.reinforcement import graded_pairs
from causerie.serve.fine_tuning.shapes import Method
from causerie.serve.fine_tuning.training_files import TrainingRows, read_training_file
from causerie.serve.models import FINE_TUNED
from causerie.serve.objects import Body
from causerie.serve.routes import Office
from causerie.store import new_id

KIND: Final = "fine_tuning.job"
EVENT: Final = "fine_tuning.job.event"
OPEN: Final = ("validating_files", "queued", "running", "paused")
"""Statuses of jobs that have not ended."""
HIDDEN: Final = ("suffix",)
STOPPED: Final = 75
"""How the trainer ends when a signal stopped it with its state saved."""
SILENT: Final = ("event", "time", "evaluation_seconds")
"""What of a measurement is not a figure of the model."""


class Turned(Exception):
    """The job was paused or cancelled meanwhile."""


class Unfit(Exception):
    """The job cannot be run; `body` says why as the API's error."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message, "param": param}


def shown(job: Body) -> Body:
    """A job as OpenAI clients read it: they know no paused jobs, so these are queued, with `paused` beside it."""
    body = {name: value for name, value in job.items() if name not in HIDDEN}
    return body | {"status": "queued", "paused": True} if body["status"] == "paused" else body


async def tell(
    office: Office, owner: str, id: str, message: str, level: str = "info", data: dict[str, Any] | None = None
) -> None:
    """Add an event to a job; with `data` it is one of figures."""
    event: Body = {
        "id": new_id("ftevent"),
        "object": EVENT,
        "created_at": int(time.time()),
        "level": level,
        "message": message,
        "data": data,
        "type": "metrics" if data else "message",
    }
    await office.objects.add(EVENT, owner, event, parent=id)


async def base_folder_of(office: Office, owner: str, model: str) -> Path:
    """The folder of a model that a job may start from: one that is served to the project, or a registered version.

    Raises:
        ApiError: 400 when there is none.
    """
    try:
        return office.pool.folder_of(model, owner)
    except CauserieError:
        pass
    try:
        if office.store is None or office.workspace is None:
            raise CauserieError("CAU-5001", f"no model {model!r}")
        version = await asyncio.to_thread(get_version, office.store, model)
    except CauserieError as error:
        message = f"{model!r} is neither served nor registered here"
        raise ApiError(400, message, code="model_not_found", param="model") from error
    owned = office.store is not None and version.card.get("project") not in (None, owner)
    if owned:
        raise ApiError(400, f"{model!r} is neither served nor registered here", code="model_not_found", param="model")
    return version.path(office.workspace)


def start_job(office: Office, owner: str, id: str) -> None:
    """Run a job as soon as those before it have ended."""
    office.workers.start(f"fine_tuning {id}", _run(office, owner, id))


async def stop_job(office: Office, id: str) -> None:
    """End a job's process and wait until it has saved its state; a job that waits for its turn waits no longer."""
    child = office.children.get(id)
    if child is None:
        await office.workers.cancel(f"fine_tuning {id}")
        return
    child.terminate()
    await office.workers.wait(f"fine_tuning {id}")


async def resume_jobs(office: Office) -> None:
    """Go on with the jobs that were under way when the server ended; serve the models that jobs made."""
    for owner, _, body in await office.objects.unfinished(FINE_TUNED, ("served",)):
        try:
            await _serve(office, owner, body)
        except CauserieError as error:
            say(f"the fine-tuned model {body['id']} cannot be served: {error.cause}")
    for owner, _, body in await office.objects.unfinished(FINE_TUNED, ("asleep",)):
        assert office.workspace is not None
        office.pool.offer(body["id"], office.workspace / body["artifact"], owner)
    for owner, _, body in await office.objects.unfinished(KIND, ("validating_files", "queued", "running")):
        start_job(office, owner, body["id"])


async def _run(office: Office, owner: str, id: str) -> None:
    try:
        async with office.training:
            job = await _standing(office, owner, id)
            rows, held_out = await _checked(office, owner, job)
            job = await _step(office, owner, id, "running")
            plan = await _planned(office, owner, job, rows, held_out)
            await tell(office, owner, id, "Fine-tuning job started")
            ended = await _train(office, owner, id, plan)
            await _finish(office, owner, id, plan, ended)
    except Turned:
        return
    except Unfit as error:
        await _fail(office, owner, id, error.body)
    except (ApiError, CauserieError) as error:
        known = as_api_error(error)
        shape = {"code": known.code or "server_error", "message": known.message, "param": known.param}
        await _fail(office, owner, id, shape)
    except Exception:
        shape = {"code": "server_error", "message": "the job failed; see the log", "param": None}
        await _fail(office, owner, id, shape)
        raise


async def _standing(office: Office, owner: str, id: str) -> Body:
    job = await office.objects.find(KIND, owner, id)
    if job is None or job["status"] not in ("validating_files", "queued", "running"):
        raise Turned
    return job


async def _step(office: Office, owner: str, id: str, status: str, **values: Any) -> Body:
    """Bring a job to its next status, unless it was paused or cancelled meanwhile."""

    def change(body: Body) -> Body:
        if body["status"] not in ("validating_files", "queued", "running"):
            raise Turned
        return body | {"status": status, **values}

    return await office.objects.change(KIND, owner, id, change)


async def _fail(office: Office, owner: str, id: str, error: dict[str, Any]) -> None:
    def change(body: Body) -> Body | None:
        if body["status"] not in OPEN:
            return None
        return body | {"status": "failed", "error": error, "finished_at": int(time.time()), "estimated_finish": None}

    if await office.objects.find(KIND, owner, id) is None:
        return  # it was deleted meanwhile: there is nobody to tell
    await office.objects.change(KIND, owner, id, change)
    await tell(office, owner, id, str(error["message"]), "error")


async def _checked(office: Office, owner: str, job: Body) -> tuple[TrainingRows, TrainingRows | None]:
    """The rows of the job's files.

    Raises:
        Unfit: naming the lines that do not fit.
    """
    found: list[TrainingRows | None] = []
    for param in ("training_file", "validation_file"):
        if job[param] is None:
            found.append(None)
            continue
        content = await files.read_file(office, owner, job[param], param, "fine-tune")
        rows = await asyncio.to_thread(read_training_file, content, job["method"]["type"])
        if complaint := rows.complaint():
            raise Unfit(f"invalid_{param}", complaint, param)
        await tell(office, owner, job["id"], f"Validated {param}: {len(rows.rows)} rows")
        found.append(rows)
    assert found[0] is not None
    return found[0], found[1]


async def _planned(office: Office, owner: str, job: Body, rows: TrainingRows, held_out: TrainingRows | None) -> Plan:
    """Command and inputs of the job's training; those of a job that goes on are still there."""
    assert office.workspace is not None
    base = await base_folder_of(office, owner, job["model"])
    supervised = job["method"]["type"] == "supervised"
    tokens = await asyncio.to_thread(count_tokens, base, rows) if supervised else ()
    plan = plan_of(job, base, office.workspace, len(rows.rows), tokens)
    if plan.written.is_file():
        return plan.as_begun()
    reinforced = job["method"]["type"] == "reinforcement"
    if reinforced and plan.kind == "dpo":
        method = Method.model_validate(job["method"])

        async def told(message: str) -> None:
            await tell(office, owner, job["id"], message)
            await _standing(office, owner, job["id"])

        rows = await graded_pairs(office, owner, job["model"], method, rows, job["seed"], told)
        if not rows.rows:
            message = "the grader gave all answers to each prompt the same score: there is nothing to learn from"
            raise Unfit("no_signal", message, "method")
        held_out = None
    grader = job["method"]["reinforcement"]["grader"] if reinforced else None
    await asyncio.to_thread(write_inputs, plan, rows, held_out, grader)
    await office.objects.set(KIND, owner, job["id"], hyperparameters=plan.hyperparameters)
    return plan


async def _train(office: Office, owner: str, id: str, plan: Plan) -> Ended:
    """Run the process, telling its figures once; after a stop that nobody asked for, it is the server that ends."""
    events = await office.objects.all(EVENT, owner, parent=id)
    known = {_name(event["data"]) for event in events if event["data"]}

    async def heard(event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "step":
            number = event["step"] + 1
            figures = {"step": number, "train_loss": event["loss"], "learning_rate": event["lr"]}
            if _name(figures) in known:
                return
            await tell(office, owner, id, f"Step {number}: training loss={event['loss']:.4f}", data=figures)
            left = event.get("seconds_left")
            if left is not None:
                await office.objects.set(KIND, owner, id, estimated_finish=int(time.time() + left))
        elif kind == "rollout":
            reward = event["reward"]
            figures = {"step": event["index"] + 1, "train_mean_reward": reward, "mean_length": event["mean_length"]}
            if _name(figures) not in known:
                await tell(office, owner, id, f"Rollout {event['index'] + 1}: mean reward {reward:.4f}", data=figures)
        elif kind in ("eval", "preference"):
            figures = {name: value for name, value in event.items() if name not in SILENT}
            if figures.keys() > {"step"} and _name(figures) not in known:
                await tell(office, owner, id, f"Measured at step {event['step']}", data=figures)
        elif kind == "snapshot" and "folder" in event:
            await _keep(office, owner, id, plan, event["step"])

    async def run(plan: Plan) -> Ended:
        child = Child(plan.command, plan.log, plan.run_folder)
        office.children[id] = child
        try:
            await _standing(office, owner, id)
            return await child.run(heard)
        finally:
            office.children.pop(id, None)

    going_on = await asyncio.to_thread(plan.goes_on)
    ended = await run(going_on)
    if going_on is plan or ended.status in (0, STOPPED):
        return ended
    await _standing(office, owner, id)
    cause = ended.result.get("error", {}).get("cause") or f"the trainer ended with status {ended.status}"
    await tell(office, owner, id, f"The training begins anew: it could not go on from its checkpoint ({cause})", "warn")
    return await run(plan)


def _name(figures: dict[str, Any]) -> tuple[Any, ...]:
    """What figures are of: a run is read from its beginning again after a stop, and told only what was not told."""
    return (figures.get("step"), *sorted(figures))


async def _keep(office: Office, owner: str, id: str, plan: Plan, until: int | None = None) -> None:
    """Offer the models that the trainer has kept on the way, up to some step: what it told of later ones is not
    heard yet."""
    events = await office.objects.all(EVENT, owner, parent=id)
    for name in await keep_models_on_the_way(office, owner, id, plan, events, until):
        await tell(office, owner, id, f"Checkpoint created: {name}")


async def _finish(office: Office, owner: str, id: str, plan: Plan, ended: Ended) -> None:
    await _keep(office, owner, id, plan)
    await _standing(office, owner, id)
    if ended.status == STOPPED:  # stopped by somebody else's signal: it waits to be resumed
        await office.objects.set(KIND, owner, id, status="paused")
        await tell(office, owner, id, "The training was stopped with its state saved", "warn")
        return
    if ended.status != 0:
        error = ended.result.get("error", {})
        raise Unfit(
            str(error.get("code") or "training_failed"),
            str(error.get("cause") or f"the trainer ended with status {ended.status}; see {plan.log.name}"),
            "training_file" if error.get("code") == "CAU-4002" else None,
        )
    assert office.store is not None
    assert office.workspace is not None
    artifact = open_artifact(Path(ended.result["path"]))
    card = {"fine_tuning_job": id, "project": owner, "metrics": artifact.manifest.metrics}
    version = await asyncio.to_thread(
        register, office.store, office.workspace, plan.model_name, artifact, card=card, actor="fine_tuning"
    )
    model: Body = {
        "id": plan.model_name,
        "object": FINE_TUNED,
        "status": "served",
        "job": id,
        "artifact": version.artifact,
        "number": version.number,
    }
    if await office.objects.find(FINE_TUNED, owner, plan.model_name) is None:
        await office.objects.add(FINE_TUNED, owner, model)
    await _serve(office, owner, model)
    await _report(office, owner, id, plan, ended.result["metrics"])


async def _serve(office: Office, owner: str, model: Body) -> None:
    assert office.workspace is not None
    folder = office.workspace / model["artifact"]
    await office.pool.load(model["id"], folder, model["number"], owner=owner)


async def _report(office: Office, owner: str, id: str, plan: Plan, metrics: dict[str, Any]) -> None:
    """Write the checkpoint, the results file and the job's last status."""
    events = await office.objects.all(EVENT, owner, parent=id)
    steps = [event["data"] for event in events if event["data"] and "learning_rate" in event["data"]]
    lines = ["step,train_loss,learning_rate", *(f"{s['step']},{s['train_loss']},{s['learning_rate']}" for s in steps)]
    content = ("\n".join(lines) + "\n").encode()
    results = await files.write_file(office, owner, "step_metrics.csv", "fine-tune-results", content)
    figures = figures_at_end(metrics, events)
    await add_checkpoint(office, owner, id, plan.model_name, int(metrics.get("steps", 0)), figures)
    await tell(office, owner, id, f"New fine-tuned model created: {plan.model_name}")
    await _step(
        office,
        owner,
        id,
        "succeeded",
        fine_tuned_model=plan.model_name,
        finished_at=int(time.time()),
        estimated_finish=None,
        trained_tokens=int(metrics.get("tokens", 0)),
        result_files=[results["id"]],
    )
    await tell(office, owner, id, "The job has successfully completed")
