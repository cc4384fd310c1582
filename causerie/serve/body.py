"""Request bodies: read under a cap, parsed strictly, every fault an answer with status 400 or 413."""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from causerie.serve.errors import ApiError
from causerie.serve.limits import MAX_BODY

Shape = TypeVar("Shape", bound=BaseModel)

UNSERVED: Final = ("extra_forbidden", "not_served")
"""Kinds of faults that a lenient server passes over: unknown fields, and fields that it cannot honour."""


async def read_body(request: Request) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413 as soon as it is longer than allowed, whatever its Content-Length says; 400 when it breaks off.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY:
        raise _too_large()
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise _too_large()
    except ClientDisconnect as error:
        raise ApiError(400, "the body broke off", code="incomplete_body") from error
    return bytes(body)


def _too_large() -> ApiError:
    return ApiError(413, f"the body is longer than {MAX_BODY:,} bytes", code="request_too_large")


async def read_shape(request: Request, shape: type[Shape]) -> Shape:
    """The body as a request model; an empty one is an empty object.

    A lenient server leaves out fields that it does not know or cannot honour, noting them in `request.state.ignored`.

    Raises:
        ApiError: 400 naming the first field that does not fit, 413.
    """
    return parse_shape(await read_body(request) or b"{}", shape, getattr(request.state, "ignored", None))


def parse_shape(body: bytes, shape: type[Shape], ignored: list[str] | None = None) -> Shape:
    """Bytes as a request model; see `read_shape`. `ignored`, when given, takes the names of fields left out.

    Raises:
        ApiError: 400.
    """
    try:
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            kept = None if ignored is None else _without_unserved(body, error, ignored)
            if kept is None:
                raise
            return shape.model_validate_json(kept)
    except ValidationError as error:
        raise _unfit(error) from error
    except (ValueError, RecursionError) as error:  # what the parser itself may raise for absurd input
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error


def _without_unserved(body: bytes, error: ValidationError, ignored: list[str]) -> bytes | None:
    """The body without the top-level fields that are unknown or not served; None when it has none."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    unserved = {str(fault["loc"][0]) for fault in faults if fault["type"] in UNSERVED and fault["loc"]}
    if not unserved:
        return None
    ignored += sorted(unserved)
    return json.dumps({name: value for name, value in json.loads(body).items() if name not in unserved}).encode()


def _unfit(error: ValidationError) -> ApiError:
    """The first fault in words, of a union's branches that of the one that fits the furthest; faults name the field,
    not the branch."""
    found: list[Any] = error.errors(include_url=False, include_input=False, include_context=False)
    first = max((each for each in found if each["loc"][:1] == found[0]["loc"][:1]), key=lambda each: len(each["loc"]))
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first['msg']}", code="invalid_json")
    path = [str(part) for part in first["loc"] if isinstance(part, int) or str(part).isidentifier()]
    param = _dotted(path)
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown field: {param}", code="unknown_parameter", param=param)
    if first["type"] == "missing":
        return ApiError(400, f"the field {param} is missing", code="missing_required_parameter", param=param)
    message = re.sub(r" found using \S+", "", first["msg"].removeprefix("Value error, "))
    return ApiError(400, f"{param or 'body'}: {message}", code="invalid_value", param=param or None)


def _dotted(path: list[str]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if part.isdigit() else f".{part}" if text else part
    return text[:200]
