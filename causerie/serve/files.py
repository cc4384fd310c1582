"""v1/files: what callers upload (training data, batches, documents) and what jobs write for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from causerie.serve.errors import ApiError
from causerie.serve.forms import read_form
from causerie.serve.keys import Principal
from causerie.serve.limits import MAX_FILE
from causerie.serve.objects import Body, deleted, no_such, page_of
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.shapes import FilePurpose
from causerie.store import new_id

KIND: Final = "file"
PURPOSES: Final[tuple[str, ...]] = get_args(FilePurpose)
LIFETIMES: Final = (3600, 30 * 24 * 3600)
"""Seconds after which a file may be set to expire: from an hour to thirty days."""


def file_object(id: str, filename: str, purpose: str, length: int, expires_at: int | None = None) -> Body:
    """A file as OpenAI clients read it."""
    return {
        "id": id,
        "object": KIND,
        "bytes": length,
        "created_at": int(time.time()),
        "expires_at": expires_at,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


async def create_file(office: Office, request: Request, principal: Principal) -> Response:
    """Keep an uploaded file."""
    form = await read_form(request, "file", MAX_FILE)
    try:
        purpose = form.fields.get("purpose", "")
        if purpose not in PURPOSES:
            message = f"purpose must be one of {', '.join(PURPOSES)}"
            raise ApiError(400, message, code="invalid_value", param="purpose")
        expires_at = _expiry(form.fields)
        id = new_id("file")
        length = await asyncio.to_thread(office.files.save, id, form.file)
    finally:
        await form.close()
    body = file_object(id, form.filename, purpose, length, expires_at)
    return JSONResponse(await office.objects.add(KIND, principal.owner, body))


def _expiry(fields: Mapping[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    least, most = LIFETIMES
    if anchor != "created_at" or not (seconds or "").isdigit() or not least <= int((seconds or "0")[:9]) <= most:
        message = f"expires_after needs anchor created_at and {least} to {most} seconds"
        raise ApiError(400, message, code="invalid_value", param="expires_after")
    return int(time.time()) + int(seconds or 0)


async def write_file(
    office: Office, owner: str, filename: str, purpose: str, content: bytes, expires_at: int | None = None
) -> Body:
    """Keep a file that a job made."""
    id = new_id("file")
    length = await asyncio.to_thread(office.files.save_bytes, id, content)
    return await office.objects.add(KIND, owner, file_object(id, filename, purpose, length, expires_at))


async def find_file(office: Office, owner: str, id: str) -> Body:
    """A file that has not expired.

    Raises:
        ApiError: 404.
    """
    body = await office.objects.get(KIND, owner, id)
    if body["expires_at"] is not None and body["expires_at"] <= time.time():
        await drop_file(office, owner, id)
        raise no_such(KIND, id)
    return body


async def read_file(office: Office, owner: str, id: str, param: str = "file_id", purpose: str | None = None) -> bytes:
    """A file's content.

    Raises:
        ApiError: 400 naming `param` when there is no such file or its purpose is another.
    """
    try:
        body = await find_file(office, owner, id)
        content = await asyncio.to_thread(office.files.read, id)
    except ApiError as error:
        raise ApiError(400, f"{param}: {error.message}", code="file_not_found", param=param) from error
    if purpose is not None and body["purpose"] != purpose:
        message = f"{param}: the file's purpose is {body['purpose']}; it must be {purpose}"
        raise ApiError(400, message, code="invalid_file_purpose", param=param)
    return content


async def drop_file(office: Office, owner: str, id: str) -> None:
    """Delete a file and its content.

    Raises:
        ApiError: 404.
    """
    await office.objects.drop(KIND, owner, id)
    await asyncio.to_thread(office.files.drop, id)


async def list_files(office: Office, request: Request, principal: Principal) -> Response:
    """The project's files."""
    purpose, moment = request.query_params.get("purpose"), time.time()

    def keep(body: Body) -> bool:
        standing = body["expires_at"] is None or body["expires_at"] > moment
        return standing and (purpose is None or body["purpose"] == purpose)

    page = page_of(request, most=10_000, default=10_000)
    return JSONResponse(await office.objects.page(KIND, principal.owner, page, keep=keep))


async def get_file(office: Office, request: Request, principal: Principal) -> Response:
    """One file's facts."""
    return JSONResponse(await find_file(office, principal.owner, request.path_params["file_id"]))


async def get_content(office: Office, request: Request, principal: Principal) -> Response:
    """One file's content, never as something that a browser would run."""
    body = await find_file(office, principal.owner, request.path_params["file_id"])
    place = office.files.path(body["id"])
    if not place.is_file():
        raise ApiError(404, "the file's content is gone", code="not_found", param="file_id")
    headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
    return FileResponse(place, media_type="application/octet-stream", filename=body["filename"], headers=headers)


async def delete_file(office: Office, request: Request, principal: Principal) -> Response:
    """Delete a file."""
    id: Any = request.path_params["file_id"]
    await drop_file(office, principal.owner, id)
    return JSONResponse(deleted(KIND, id))


ROUTES: Final = (
    ApiRoute("POST", "files", create_file, "file", "create"),
    ApiRoute("GET", "files", list_files, "file", "read"),
    ApiRoute("GET", "files/{file_id}", get_file, "file", "read"),
    ApiRoute("GET", "files/{file_id}/content", get_content, "file", "read"),
    ApiRoute("DELETE", "files/{file_id}", delete_file, "file", "delete"),
)
