"""GET v1/models and v1/models/{model}."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.keys import Principal
from causerie.serve.pool import Served
from causerie.serve.routes import Office


def model_object(name: str, served: Served) -> dict[str, Any]:
    """A model as OpenAI clients read it, with the version behind the name under `causerie`."""
    version = served.version
    facts = {
        "version": version.version,
        "key": version.key,
        "chat_format": version.chat_format,
        "max_seq_len": served.max_seq_len,
    }
    return {"id": name, "object": "model", "created": served.created, "owned_by": "causerie", "causerie": facts}


async def list_models(office: Office, request: Request, principal: Principal) -> Response:
    """Every name being served."""
    rows = [model_object(name, served) for name, served in office.pool.models()]
    return JSONResponse({"object": "list", "data": rows})


async def get_model(office: Office, request: Request, principal: Principal) -> Response:
    """One model, by `name` or `name@N`."""
    name = str(request.path_params["model"])
    return JSONResponse(model_object(name, office.pool.get(name)))
