"""Multipart bodies: a file and a few short fields, the whole counted while it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import IO

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from causerie.serve.errors import ApiError
from causerie.serve.limits import MAX_NAME

FIELD_BYTES = 64 * 1024
"""Bytes of one short field, and what all fields and headers together may add to the file."""


@dataclass
class Form:
    """A multipart body: short fields by name, and its one file (spooled to the disk when it is large)."""

    file: IO[bytes]
    filename: str
    fields: dict[str, str] = field(default_factory=dict)
    _upload: UploadFile | None = None

    async def close(self) -> None:
        """Let go of the spooled file."""
        if self._upload is not None:
            await self._upload.close()


async def read_form(request: Request, file_field: str, most: int) -> Form:
    """A multipart body with a file.

    Args:
        file_field: name of the field that holds the file.
        most: bytes of the file, at most.

    Raises:
        ApiError: 400 for a body that is no such form, 413 for one that is too long.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "the body must be multipart/form-data", code="invalid_content_type")
    try:
        parser = MultiPartParser(
            request.headers,
            _counted(request, most + FIELD_BYTES),
            max_files=1,
            max_fields=32,
            max_part_size=FIELD_BYTES,
        )
        data = await parser.parse()
    except (MultiPartException, MultipartParseError, KeyError, UnicodeDecodeError, ValueError) as error:
        raise ApiError(400, f"the body is not a multipart form: {error}", code="invalid_form") from error
    except ClientDisconnect as error:
        raise ApiError(400, "the body broke off", code="incomplete_body") from error
    upload = data.get(file_field)
    if not isinstance(upload, UploadFile):
        for each in data.values():
            if isinstance(each, UploadFile):
                await each.close()
        message = f"the field {file_field} is missing or is not a file"
        raise ApiError(400, message, code="missing_required_parameter", param=file_field)
    fields = {name: value for name, value in data.items() if isinstance(value, str)}
    filename = (upload.filename or "upload").replace("\0", "").replace("\\", "/").rpartition("/")[2]
    return Form(upload.file, filename[:MAX_NAME] or "upload", fields, upload)


async def _counted(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    seen = 0
    async for piece in request.stream():
        seen += len(piece)
        if seen > most:
            raise _too_large(most)
        yield piece


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the upload is longer than {most:,} bytes", code="request_too_large")
