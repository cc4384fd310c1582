"""The OpenAPI document of this server, made from its table of routes and the models of their bodies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie import __version__
from causerie.serve.keys import Principal
from causerie.serve.routes import ApiRoute, Office

REFERENCE: Final = "#/components/schemas/{model}"
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def openapi_document(table: Sequence[ApiRoute]) -> dict[str, Any]:
    """The document: every operation under `/v1`, its right, its body, its errors."""
    models = list({route.body: None for route in table if route.body is not None})
    names, schemas = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        operation = _operation(route)
        if route.body is not None:
            schema = names[route.body, "validation"]
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths.setdefault(f"/v1/{route.path}".replace(":path}", "}"), {})[route.method.lower()] = operation
    schemas = {"Error": _ERROR, **schemas.get("$defs", {})}
    security = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "azure": {"type": "apiKey", "in": "header", "name": "api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Causerie", "version": __version__},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"azure": []}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas, "securitySchemes": security},
    }


def _operation(route: ApiRoute) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)(?::path)?\}", route.path)
    title = (route.endpoint.__doc__ or "").partition("\n")[0].strip() or f"{route.method} {route.path}"
    error = {"description": "An error.", "content": {"application/json": {"schema": _ref("Error")}}}
    return {
        "operationId": f"{route.method.lower()}_{re.sub('[^a-z]+', '_', route.path.lower()).strip('_')}",
        "summary": title,
        "x-causerie-right": f"{route.resource}.{route.action}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ],
        "responses": {"200": {"description": "Done."}, "default": error},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=name)}


async def document(office: Office, request: Request, principal: Principal) -> Response:
    """This server's OpenAPI document."""
    from causerie.serve.table import TABLE

    return JSONResponse(openapi_document(TABLE))


DOCUMENT: Final = ApiRoute("GET", "openapi.json", document, "model", "read")
"""Served at /openapi.json, without a prefix."""
