"""v1/fine_tuning/jobs: made, listed, watched, paused, resumed and cancelled."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve import files
from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.fine_tuning.checkpoints import CHECKPOINT
from causerie.serve.fine_tuning.running import (
    EVENT,
    KIND,
    OPEN,
    base_folder_of,
    shown,
    start_job,
    stop_job,
    tell,
)
from causerie.serve.fine_tuning.shapes import JobRequest
from causerie.serve.keys import Principal
from causerie.serve.objects import Body, asked_metadata, page_of
from causerie.serve.routes import ApiRoute, Office
from causerie.store import new_id


async def create_job(office: Office, request: Request, principal: Principal) -> Response:
    """Begin a job: files and model are looked up now, the files' lines are checked by the job itself."""
    asked = await read_shape(request, JobRequest)
    owner, method = principal.owner, asked.chosen()
    await base_folder_of(office, owner, asked.model)
    for param in ("training_file", "validation_file"):
        id = getattr(asked, param)
        if id is not None:
            await files.read_file(office, owner, id, param, "fine-tune")
    settings = method.settings.model_dump(include={"batch_size", "learning_rate_multiplier", "n_epochs"})
    body: Body = {
        "id": new_id("ftjob"),
        "object": KIND,
        "created_at": int(time.time()),
        "model": asked.model,
        "status": "validating_files",
        "training_file": asked.training_file,
        "validation_file": asked.validation_file,
        "method": method.model_dump(exclude_none=True),
        "hyperparameters": {name: value or "auto" for name, value in settings.items()},
        "seed": secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        "metadata": asked.metadata,
        "integrations": [each.model_dump(exclude_none=True) for each in asked.integrations or ()],
        "organization_id": "org-causerie",
        "fine_tuned_model": None,
        "finished_at": None,
        "estimated_finish": None,
        "trained_tokens": None,
        "result_files": [],
        "error": None,
        "suffix": asked.suffix,
    }
    await office.objects.add(KIND, owner, body)
    await tell(office, owner, body["id"], f"Created fine-tuning job: {body['id']}")
    start_job(office, owner, body["id"])
    return JSONResponse(shown(body))


async def list_jobs(office: Office, request: Request, principal: Principal) -> Response:
    """The project's jobs, newest first."""
    wanted = asked_metadata(request)

    def keep(body: Body) -> bool:
        return wanted.items() <= (body.get("metadata") or {}).items()

    found = await office.objects.page(KIND, principal.owner, page_of(request), keep=keep)
    return JSONResponse(found | {"data": [shown(body) for body in found["data"]]})


async def get_job(office: Office, request: Request, principal: Principal) -> Response:
    """One job."""
    return JSONResponse(shown(await office.objects.get(KIND, principal.owner, _id(request))))


async def cancel_job(office: Office, request: Request, principal: Principal) -> Response:
    """End a job for good."""
    return JSONResponse(shown(await _turn(office, principal.owner, _id(request), OPEN, "cancelled")))


async def pause_job(office: Office, request: Request, principal: Principal) -> Response:
    """Stop a job with its state saved; `resume` goes on from there."""
    standing = ("validating_files", "queued", "running")
    return JSONResponse(shown(await _turn(office, principal.owner, _id(request), standing, "paused")))


async def resume_job(office: Office, request: Request, principal: Principal) -> Response:
    """Go on with a paused job; one that was not paused goes on anyway."""
    owner, id = principal.owner, _id(request)
    job = await office.objects.get(KIND, owner, id)
    if job["status"] in ("validating_files", "queued", "running"):
        return JSONResponse(shown(job))
    job = await _turn(office, owner, id, ("paused",), "queued")
    start_job(office, owner, id)
    return JSONResponse(shown(job))


async def _turn(office: Office, owner: str, id: str, standing: tuple[str, ...], status: str) -> Body:
    """Change a job's status where it has one of some, and end its process where that is meant."""

    def change(body: Body) -> Body:
        if body["status"] not in standing:
            message = f"the job is {shown(body)['status']}{' (paused)' if body['status'] == 'paused' else ''}"
            raise ApiError(400, f"{message}; it cannot become {status}", code="invalid_job_status")
        ended = {"finished_at": int(time.time())} if status == "cancelled" else {}
        return body | {"status": status, **ended}

    job = await office.objects.change(KIND, owner, id, change)
    words = {"cancelled": "Fine-tuning job cancelled", "paused": "Fine-tuning job paused", "queued": "Job resumed"}
    await tell(office, owner, id, words[status])
    if status != "queued":
        await stop_job(office, id)
    return job


async def list_events(office: Office, request: Request, principal: Principal) -> Response:
    """What a job told, newest first."""
    return await _children(office, request, principal, EVENT)


async def list_checkpoints(office: Office, request: Request, principal: Principal) -> Response:
    """The models that a job made."""
    return await _children(office, request, principal, CHECKPOINT)


async def _children(office: Office, request: Request, principal: Principal, kind: str) -> Response:
    job = await office.objects.get(KIND, principal.owner, _id(request))
    return JSONResponse(await office.objects.page(kind, principal.owner, page_of(request), parent=job["id"]))


def _id(request: Request) -> str:
    id: Any = request.path_params["job_id"]
    return str(id)


ONE: Final = "fine_tuning/jobs/{job_id}"
ROUTES: Final = (
    ApiRoute("POST", "fine_tuning/jobs", create_job, "fine_tuning", "create", body=JobRequest),
    ApiRoute("GET", "fine_tuning/jobs", list_jobs, "fine_tuning", "read"),
    ApiRoute("GET", ONE, get_job, "fine_tuning", "read"),
    ApiRoute("POST", f"{ONE}/cancel", cancel_job, "fine_tuning", "update"),
    ApiRoute("POST", f"{ONE}/pause", pause_job, "fine_tuning", "update"),
    ApiRoute("POST", f"{ONE}/resume", resume_job, "fine_tuning", "update"),
    ApiRoute("GET", f"{ONE}/events", list_events, "fine_tuning", "read"),
    ApiRoute("GET", f"{ONE}/checkpoints", list_checkpoints, "fine_tuning", "read"),
)
