"""The operations of v1/evals."""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.evals.running import EVAL, ITEM, NO_ERROR, OPEN, RUN, start_run
from causerie.serve.evals.shapes import CustomConfig, EvalRequest, EvalUpdate, FileId, RunRequest
from causerie.serve.files import find_file
from causerie.serve.graders.grade import THRESHOLD
from causerie.serve.keys import Principal
from causerie.serve.objects import Body, page_of
from causerie.serve.routes import ApiRoute, Office
from causerie.store import new_id

KNOWN_ROLES: Final = ("user", "assistant", "system", "developer")


async def create_eval(office: Office, request: Request, principal: Principal) -> Response:
    """Say what is to be measured."""
    asked = await read_shape(request, EvalRequest)
    config = asked.data_source_config
    criteria = [each.model_dump(exclude_none=True) for each in asked.testing_criteria]
    for each in criteria:
        for message in each["input"] if isinstance(each["input"], list) else ():
            message["role"] = message["role"] if message["role"] in KNOWN_ROLES else "user"
        if each["type"] == "text_similarity":
            each.setdefault("pass_threshold", THRESHOLD)
    body: Body = {
        "id": new_id("eval"),
        "object": EVAL,
        "created_at": int(time.time()),
        "name": asked.name or "eval",
        "metadata": asked.metadata or {},
        "data_source_config": _config(config),
        "testing_criteria": criteria,
    }
    return JSONResponse(await office.objects.add(EVAL, principal.owner, body), 201)


def _config(config: Any) -> Body:
    """The data source's description as it is shown: with the schema of what templates can name."""
    properties: dict[str, Any] = {"item": {"type": "object"}}
    required = ["item"]
    if isinstance(config, CustomConfig):
        properties["item"] = config.item_schema
    if not isinstance(config, CustomConfig) or config.include_sample_schema:
        properties["sample"] = {"type": "object", "properties": {"output_text": {"type": "string"}}}
        required.append("sample")
    schema = {"type": "object", "properties": properties, "required": required}
    if isinstance(config, CustomConfig):
        return {"type": "custom", "schema": schema}
    return {"type": config.type, "metadata": config.metadata, "schema": schema}


async def list_evals(office: Office, request: Request, principal: Principal) -> Response:
    """The project's evals."""
    return JSONResponse(await office.objects.page(EVAL, principal.owner, page_of(request, order="asc")))


async def get_eval(office: Office, request: Request, principal: Principal) -> Response:
    """One eval."""
    return JSONResponse(await office.objects.get(EVAL, principal.owner, _part(request, "eval_id")))


async def update_eval(office: Office, request: Request, principal: Principal) -> Response:
    """Give an eval another name or metadata."""
    asked = await read_shape(request, EvalUpdate)
    values = asked.model_dump(exclude_none=True)
    return JSONResponse(await office.objects.set(EVAL, principal.owner, _part(request, "eval_id"), **values))


async def delete_eval(office: Office, request: Request, principal: Principal) -> Response:
    """Delete an eval with its runs."""
    owner, id = principal.owner, _part(request, "eval_id")
    await office.objects.drop(EVAL, owner, id)
    for run in await office.objects.all(RUN, owner, parent=id):
        await _drop_run(office, owner, id, run["id"])
    return JSONResponse({"object": "eval.deleted", "deleted": True, "eval_id": id})


async def create_run(office: Office, request: Request, principal: Principal) -> Response:
    """Begin a run."""
    asked = await read_shape(request, RunRequest)
    owner, eval_id = principal.owner, _part(request, "eval_id")
    spec = await office.objects.get(EVAL, owner, eval_id)
    model = getattr(asked.data_source, "model", None)
    if model is not None:
        office.pool.get(model, owner)
    if isinstance(asked.data_source.source, FileId):
        await find_file(office, owner, asked.data_source.source.id)
    id = new_id("evalrun")
    body: Body = {
        "id": id,
        "object": RUN,
        "eval_id": eval_id,
        "created_at": int(time.time()),
        "status": "queued",
        "name": asked.name or spec["name"],
        "model": model or "",
        "metadata": asked.metadata or {},
        "data_source": asked.data_source.model_dump(exclude_none=True, by_alias=True),
        "error": NO_ERROR,
        "per_model_usage": [],
        "per_testing_criteria_results": [],
        "report_url": f"/v1/evals/{eval_id}/runs/{id}",
        "result_counts": {"total": 0, "passed": 0, "failed": 0, "errored": 0},
    }
    await office.objects.add(RUN, owner, body, parent=eval_id)
    start_run(office, owner, eval_id, id)
    return JSONResponse(body, 201)


async def list_runs(office: Office, request: Request, principal: Principal) -> Response:
    """An eval's runs, of one status where the query names it."""
    id = _part(request, "eval_id")
    await office.objects.get(EVAL, principal.owner, id)
    keep = _of_status(request)
    page = page_of(request, order="asc")
    return JSONResponse(await office.objects.page(RUN, principal.owner, page, parent=id, keep=keep))


async def get_run(office: Office, request: Request, principal: Principal) -> Response:
    """One run."""
    return JSONResponse(await _run(office, request, principal))


async def cancel_run(office: Office, request: Request, principal: Principal) -> Response:
    """Grade no further items."""

    def change(body: Body) -> Body:
        if body["status"] not in (*OPEN, "canceled"):
            raise ApiError(400, f"the run is {body['status']}", code="invalid_run_status")
        return body | {"status": "canceled"}

    eval_id, id = _part(request, "eval_id"), _part(request, "run_id")
    return JSONResponse(await office.objects.change(RUN, principal.owner, id, change, parent=eval_id))


async def delete_run(office: Office, request: Request, principal: Principal) -> Response:
    """Delete a run with its output items."""
    eval_id, id = _part(request, "eval_id"), _part(request, "run_id")
    await _drop_run(office, principal.owner, eval_id, id)
    return JSONResponse({"object": "eval.run.deleted", "deleted": True, "run_id": id})


async def _drop_run(office: Office, owner: str, eval_id: str, id: str) -> None:
    await office.objects.get(RUN, owner, id, parent=eval_id)
    await office.workers.cancel(f"eval {id}")
    await office.objects.drop(RUN, owner, id, parent=eval_id)
    await office.objects.drop_children(ITEM, owner, id)


async def list_output_items(office: Office, request: Request, principal: Principal) -> Response:
    """What each item of a run was worth."""
    run = await _run(office, request, principal)
    keep = _of_status(request)
    page = page_of(request, order="asc")
    return JSONResponse(await office.objects.page(ITEM, principal.owner, page, parent=run["id"], keep=keep))


async def get_output_item(office: Office, request: Request, principal: Principal) -> Response:
    """One of them."""
    run = await _run(office, request, principal)
    item = _part(request, "output_item_id")
    return JSONResponse(await office.objects.get(ITEM, principal.owner, item, parent=run["id"]))


async def _run(office: Office, request: Request, principal: Principal) -> Body:
    eval_id, id = _part(request, "eval_id"), _part(request, "run_id")
    return await office.objects.get(RUN, principal.owner, id, parent=eval_id)


def _of_status(request: Request) -> Any:
    status = request.query_params.get("status")
    return None if status is None else lambda body: body["status"] == status


def _part(request: Request, name: str) -> str:
    return str(request.path_params[name])


ONE: Final = "evals/{eval_id}"
A_RUN: Final = f"{ONE}/runs/{{run_id}}"
ROUTES: Final = (
    ApiRoute("POST", "evals", create_eval, "eval", "create", body=EvalRequest),
    ApiRoute("GET", "evals", list_evals, "eval", "read"),
    ApiRoute("GET", ONE, get_eval, "eval", "read"),
    ApiRoute("POST", ONE, update_eval, "eval", "update", body=EvalUpdate),
    ApiRoute("DELETE", ONE, delete_eval, "eval", "delete"),
    ApiRoute("POST", f"{ONE}/runs", create_run, "eval", "create", body=RunRequest),
    ApiRoute("GET", f"{ONE}/runs", list_runs, "eval", "read"),
    ApiRoute("GET", A_RUN, get_run, "eval", "read"),
    ApiRoute("POST", A_RUN, cancel_run, "eval", "update"),
    ApiRoute("POST", f"{A_RUN}/cancel", cancel_run, "eval", "update"),
    ApiRoute("DELETE", A_RUN, delete_run, "eval", "delete"),
    ApiRoute("GET", f"{A_RUN}/output_items", list_output_items, "eval", "read"),
    ApiRoute("GET", f"{A_RUN}/output_items/{{output_item_id}}", get_output_item, "eval", "read"),
)
