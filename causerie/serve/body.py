"""Request bodies: read under a cap, parsed strictly, every fault an answer with status 400 or 413."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from causerie.serve.errors import ApiError
from causerie.serve.limits import MAX_BODY

Shape = TypeVar("Shape", bound=BaseModel)


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
    """The body as a request model.

    Raises:
        ApiError: 400 naming the first field that does not fit, 413.
    """
    body = await read_body(request)
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise _unfit(error) from error
    except (ValueError, RecursionError) as error:  # what the parser itself may raise for absurd input
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error


def _unfit(error: ValidationError) -> ApiError:
    """The first fault in words; faults of union branches name the field, not the branch."""
    found: list[Any] = error.errors(include_url=False, include_input=False, include_context=False)
    first = found[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first['msg']}", code="invalid_json")
    path = [str(part) for part in first["loc"] if isinstance(part, int) or str(part).isidentifier()]
    param = _dotted(path)
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown field: {param}", code="unknown_parameter", param=param)
    if first["type"] == "missing":
        return ApiError(400, f"the field {param} is missing", code="missing_required_parameter", param=param)
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param or 'body'}: {message}", code="invalid_value", param=param or None)


def _dotted(path: list[str]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if part.isdigit() else f".{part}" if text else part
    return text[:200]
