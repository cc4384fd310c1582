"""v1/uploads: large files in parts, joined and checked when the upload is completed."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve import files
from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.forms import read_form
from causerie.serve.keys import Principal
from causerie.serve.limits import MAX_PART, MAX_PARTS, MAX_UPLOAD
from causerie.serve.objects import Body
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.shapes import FileExpiry, FilePurpose, Name, Short, Strict
from causerie.store import new_id

KIND: Final = "upload"
PART: Final = "upload.part"
LIFETIME: Final = 3600
"""Seconds that an upload may stay unfinished."""


class UploadRequest(Strict):
    """POST v1/uploads."""

    bytes: Annotated[int, Field(ge=0, le=MAX_UPLOAD)]
    filename: Name
    mime_type: Short
    purpose: FilePurpose
    expires_after: FileExpiry | None = None


class CompleteRequest(Strict):
    """POST v1/uploads/{id}/complete."""

    part_ids: Annotated[list[Name], Field(min_length=1, max_length=MAX_PARTS)]
    md5: Annotated[str, Field(pattern=r"\A[0-9a-fA-F]{32}$")] | None = None


async def create_upload(office: Office, request: Request, principal: Principal) -> Response:
    """Begin an upload."""
    asked = await read_shape(request, UploadRequest)
    moment = int(time.time())
    body: Body = {
        "id": new_id("upload"),
        "object": KIND,
        "bytes": asked.bytes,
        "created_at": moment,
        "expires_at": moment + LIFETIME,
        "filename": asked.filename,
        "purpose": asked.purpose,
        "status": "pending",
        "file": None,
    }
    kept = body | {"mime_type": asked.mime_type, "lifetime": asked.expires_after and asked.expires_after.seconds}
    await office.objects.add(KIND, principal.owner, kept)
    return JSONResponse(body)


async def add_part(office: Office, request: Request, principal: Principal) -> Response:
    """Keep one part; parts may come in any order and at the same time."""
    upload = await office.objects.get(KIND, principal.owner, request.path_params["upload_id"])
    _need_pending(upload)
    form = await read_form(request, "data", MAX_PART)
    try:
        id = new_id("part")
        length = await asyncio.to_thread(office.files.save, id, form.file)
    finally:
        await form.close()
    known = await office.objects.all(PART, principal.owner, parent=upload["id"])
    if len(known) >= MAX_PARTS or sum(part["bytes"] for part in known) + length > upload["bytes"]:
        await asyncio.to_thread(office.files.drop, id)
        message = f"the parts are longer than the {upload['bytes']} bytes announced, or more than {MAX_PARTS}"
        raise ApiError(400, message, code="invalid_upload", param="data")
    body: Body = {"id": id, "object": PART, "created_at": int(time.time()), "upload_id": upload["id"]}
    await office.objects.add(PART, principal.owner, body | {"bytes": length}, parent=upload["id"])
    return JSONResponse(body)


async def complete_upload(office: Office, request: Request, principal: Principal) -> Response:
    """Join the parts in the order given, check length and MD5, and make the file."""
    asked = await read_shape(request, CompleteRequest)
    owner, id = principal.owner, request.path_params["upload_id"]
    upload = await office.objects.get(KIND, owner, id)
    _need_pending(upload)
    if len(set(asked.part_ids)) != len(asked.part_ids):
        raise ApiError(400, "part_ids names a part twice", code="invalid_upload", param="part_ids")
    for part in asked.part_ids:
        await office.objects.get(PART, owner, part, parent=id)
    file_id = new_id("file")
    length, digest = await asyncio.to_thread(office.files.join, file_id, asked.part_ids)
    fault = ""
    if length != upload["bytes"]:
        fault = f"the parts hold {length} bytes; {upload['bytes']} were announced"
    elif asked.md5 is not None and asked.md5.lower() != digest:
        fault = f"the MD5 is {digest}"
    if fault:
        await asyncio.to_thread(office.files.drop, file_id)
        raise ApiError(400, fault, code="invalid_upload", param="md5" if "MD5" in fault else "part_ids")
    expires_at = int(time.time()) + upload["lifetime"] if upload.get("lifetime") else None
    file = files.file_object(file_id, upload["filename"], upload["purpose"], length, expires_at)

    def finish(body: Body) -> Body:
        _need_pending(body)
        return body | {"status": "completed", "file": file}

    try:
        await office.objects.change(KIND, owner, id, finish)
    except ApiError:  # completed or cancelled meanwhile by another request
        await asyncio.to_thread(office.files.drop, file_id)
        raise
    await office.objects.add(files.KIND, owner, file)
    await _drop_parts(office, owner, id)
    return JSONResponse(_shown(upload) | {"status": "completed", "file": file})


async def cancel_upload(office: Office, request: Request, principal: Principal) -> Response:
    """Give an upload up; its parts are deleted."""
    owner, id = principal.owner, request.path_params["upload_id"]

    def cancel(body: Body) -> Body:
        _need_pending(body)
        return body | {"status": "cancelled"}

    body = await office.objects.change(KIND, owner, id, cancel)
    await _drop_parts(office, owner, id)
    return JSONResponse(_shown(body))


def _need_pending(upload: Body) -> None:
    status: Any = upload["status"]
    if status == "pending" and upload["expires_at"] <= time.time():
        status = "expired"
    if status != "pending":
        raise ApiError(400, f"the upload is {status}", code="invalid_upload", param="upload_id")


def _shown(upload: Body) -> Body:
    return {name: value for name, value in upload.items() if name not in ("mime_type", "lifetime")}


async def _drop_parts(office: Office, owner: str, id: str) -> None:
    for part in await office.objects.all(PART, owner, parent=id):
        await asyncio.to_thread(office.files.drop, part["id"])
    await office.objects.drop_children(PART, owner, id)


ROUTES: Final = (
    ApiRoute("POST", "uploads", create_upload, "upload", "create", body=UploadRequest),
    ApiRoute("POST", "uploads/{upload_id}/parts", add_part, "upload", "create"),
    ApiRoute("POST", "uploads/{upload_id}/complete", complete_upload, "upload", "create", body=CompleteRequest),
    ApiRoute("POST", "uploads/{upload_id}/cancel", cancel_upload, "upload", "delete"),
)
