"""Files in messages: the text of a file of the project, or one that came with the request, as the model reads it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

from causerie.serve import files
from causerie.serve.errors import ApiError
from causerie.serve.keys import Principal
from causerie.serve.limits import MAX_TEXT
from causerie.serve.objects import Body
from causerie.serve.routes import Office
from causerie.serve.scopes import Need

READ: Final = Need("file", "read")
MOST: Final = 64
"""Files in one request, at most."""


async def file_text(office: Office, principal: Principal, part: Body, param: str) -> str:
    """A file as it is put before the model: its name and its text between marks.

    Args:
        part: `file_id`, or `file_data` (base64, as a data URL or bare) and perhaps `filename`.

    Raises:
        ApiError: 400 for a file that is not there, is no text in UTF-8, or is too long; 403 for a caller who may not
            read the project's files.
    """
    name = part.get("filename")
    if part.get("file_id") is not None:
        if not principal.may(READ):
            raise ApiError(403, "this key lacks the scope file.read", type="permission_error", code="missing_scope")
        content = await files.read_file(office, principal.owner, part["file_id"], param)
        name = name or (await files.find_file(office, principal.owner, part["file_id"]))["filename"]
    else:
        try:
            content = base64.b64decode(part["file_data"].rpartition(",")[2], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, f"{param}: file_data is not base64", code="invalid_value", param=param) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{param}: this server reads files of plain text in UTF-8; {name or 'this one'} is none"
        raise ApiError(400, message, code="unsupported_file", param=param) from error
    if "\0" in text or len(text) > MAX_TEXT:
        message = f"{param}: the file has U+0000 in it or more than {MAX_TEXT} characters"
        raise ApiError(400, message, code="unsupported_file", param=param)
    return f"<file name={_quoted(name or 'file')}>\n{text}\n</file>"


async def with_file_texts(office: Office, principal: Principal, items: Sequence[Body]) -> list[Body]:
    """Items of a response, the files in messages and in what tools gave replaced by what they say.

    Raises:
        ApiError: see `file_text`; also for too many files.
    """
    found, count = [], 0
    for body in items:
        place = "content" if body.get("type") == "message" else "output"
        parts = body.get(place)
        if not isinstance(parts, list) or all(part["type"] != "input_file" for part in parts):
            found.append(body)
            continue
        told: list[Any] = []
        for part in parts:
            if part["type"] == "input_file":
                count += 1
                if count > MOST:
                    raise ApiError(400, f"input: more than {MOST} files", code="invalid_value", param="input")
                told.append({"type": "input_text", "text": await file_text(office, principal, part, "input")})
            else:
                told.append(part)
        found.append(body | {place: told})
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', "'") + '"'
