"""v1/models: what is being served, and the deletion of fine-tuned models."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.core import CauserieError
from causerie.hub import retire
from causerie.serve.errors import ApiError
from causerie.serve.keys import Principal
from causerie.serve.objects import deleted
from causerie.serve.pool import Served
from causerie.serve.routes import ApiRoute, Office

FINE_TUNED: Final = "fine_tuned_model"
"""Kind of the stored object that says whose a fine-tuned model is; its status is "served", or "asleep" for a
checkpoint, which is loaded when somebody asks for it."""


def model_object(name: str, served: Served) -> dict[str, Any]:
    """A model as OpenAI clients read it, with the version behind the name under `causerie`."""
    version = served.version
    facts = {
        "version": version.version,
        "key": version.key,
        "chat_format": version.chat_format,
        "max_seq_len": served.max_seq_len,
    }
    return {
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": served.owner or "causerie",
        "causerie": facts,
    }


async def list_models(office: Office, request: Request, principal: Principal) -> Response:
    """Every name being served."""
    rows = [model_object(name, served) for name, served in office.pool.models() if served.seen_by(principal.owner)]
    return JSONResponse({"object": "list", "data": rows})


async def get_model(office: Office, request: Request, principal: Principal) -> Response:
    """One model, by `name` or `name@N`."""
    name = str(request.path_params["model"])
    async with office.pool.lease(name, principal.owner) as served:
        return JSONResponse(model_object(name, served))


async def delete_model(office: Office, request: Request, principal: Principal) -> Response:
    """Stop serving a fine-tuned model of the project; its files stay in the workspace, its version is retired."""
    name = str(request.path_params["model"])
    office.pool.folder_of(name, principal.owner)
    kept = await office.objects.find(FINE_TUNED, principal.owner, name)
    if kept is None:
        message = f"{name} was not fine-tuned by this project; only such models can be deleted here"
        raise ApiError(403, message, type="permission_error", code="not_deletable", param="model")
    await office.pool.unload(name)
    await office.objects.drop(FINE_TUNED, principal.owner, name)
    if kept.get("number") is not None:
        await asyncio.to_thread(_leave, office, f"{name}@{kept['number']}")
    return JSONResponse(deleted("model", name))


def _leave(office: Office, ref: str) -> None:
    """Take the version out of use in the registry; one that is promoted is the last of its name and stays listed."""
    assert office.store is not None
    with contextlib.suppress(CauserieError):
        retire(office.store, ref, actor="api", reason="deleted through the API")


ROUTES: Final = (
    ApiRoute("GET", "models", list_models, "model", "read"),
    ApiRoute("GET", "models/{model:path}", get_model, "model", "read"),
    ApiRoute("DELETE", "models/{model:path}", delete_model, "fine_tuned_model", "delete"),
)
