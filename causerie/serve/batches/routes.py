"""The operations of v1/batches."""

from __future__ import annotations

import time
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve import files
from causerie.serve.batches.running import KIND, start_batch
from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.keys import Principal
from causerie.serve.limits import MAX_BATCH_FILE
from causerie.serve.objects import Body, page_of
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.shapes import FileExpiry, Metadata, Name, Strict
from causerie.store import new_id

WINDOW: Final = 24 * 3600
HIDDEN: Final = ("output_lifetime", "key_id")
TIMES: Final = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


class BatchRequest(Strict):
    """POST v1/batches."""

    input_file_id: Name
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: FileExpiry | None = None


def shown(batch: Body) -> Body:
    """A batch as OpenAI clients read it."""
    return {name: value for name, value in batch.items() if name not in HIDDEN}


async def create_batch(office: Office, request: Request, principal: Principal) -> Response:
    """Begin a batch; its file's lines are checked in the background."""
    asked = await read_shape(request, BatchRequest)
    file = await files.find_file(office, principal.owner, asked.input_file_id)
    if file["purpose"] != "batch" or file["bytes"] > MAX_BATCH_FILE:
        message = f"input_file_id must name a file of the purpose batch with at most {MAX_BATCH_FILE:,} bytes"
        raise ApiError(400, message, code="invalid_file_purpose", param="input_file_id")
    moment = int(time.time())
    body: Body = {
        "id": new_id("batch"),
        "object": KIND,
        "endpoint": asked.endpoint,
        "errors": None,
        "input_file_id": asked.input_file_id,
        "completion_window": asked.completion_window,
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": moment,
        "expires_at": moment + WINDOW,
        **{f"{name}_at": None for name in TIMES},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": asked.metadata,
        "output_lifetime": asked.output_expires_after and asked.output_expires_after.seconds,
        "key_id": principal.key_id,
    }
    await office.objects.add(KIND, principal.owner, body)
    start_batch(office, principal, body["id"])
    return JSONResponse(shown(body))


async def list_batches(office: Office, request: Request, principal: Principal) -> Response:
    """The project's batches, newest first."""
    found = await office.objects.page(KIND, principal.owner, page_of(request))
    return JSONResponse(found | {"data": [shown(body) for body in found["data"]]})


async def get_batch(office: Office, request: Request, principal: Principal) -> Response:
    """One batch."""
    id: Any = request.path_params["batch_id"]
    return JSONResponse(shown(await office.objects.get(KIND, principal.owner, id)))


async def cancel_batch(office: Office, request: Request, principal: Principal) -> Response:
    """Begin no further requests; what is answered already is kept."""
    id: Any = request.path_params["batch_id"]

    def change(body: Body) -> Body:
        if body["status"] in ("cancelling", "cancelled"):
            return body
        if body["status"] not in ("validating", "in_progress"):
            raise ApiError(400, f"the batch is {body['status']}", code="invalid_batch_status")
        return body | {"status": "cancelling", "cancelling_at": int(time.time())}

    body = await office.objects.change(KIND, principal.owner, id, change)
    if body["status"] == "cancelling":
        office.cancelled_batches.add(id)
    return JSONResponse(shown(body))


ROUTES: Final = (
    ApiRoute("POST", "batches", create_batch, "batch", "create", body=BatchRequest),
    ApiRoute("GET", "batches", list_batches, "batch", "read"),
    ApiRoute("GET", "batches/{batch_id}", get_batch, "batch", "read"),
    ApiRoute("POST", "batches/{batch_id}/cancel", cancel_batch, "batch", "update"),
)
