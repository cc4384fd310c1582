"""What a vector store holds: its files, cut into chunks as they come in, and the index over them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from typing import Any, Final

from causerie.serve import files
from causerie.serve.errors import ApiError
from causerie.serve.limits import MAX_CHUNKS
from causerie.serve.objects import Body
from causerie.serve.routes import Office
from causerie.serve.vector_stores.ranking import Chunk, Index, chunks_of
from causerie.serve.vector_stores.shapes import Chunking, FileRequest

STORE: Final = "vector_store"
FILE: Final = "vector_store.file"
BATCH: Final = "vector_store.files_batch"
CHUNKS: Final = "vector_store.chunks"
DAY: Final = 24 * 3600
INDEXES: Final = 8
"""Indexes kept in memory; others are built again when they are searched."""


async def get_store(office: Office, owner: str, id: str) -> Body:
    """A store; one that was not used for as long as it says is expired.

    Raises:
        ApiError: 404.
    """
    body = await office.objects.get(STORE, owner, id)
    expires_at = expiry(body)
    status = "expired" if expires_at is not None and expires_at <= time.time() else body["status"]
    return body | {"expires_at": expires_at, "status": status}


def expiry(store: Body) -> int | None:
    """When a store expires."""
    after = store.get("expires_after")
    return store["last_active_at"] + after["days"] * DAY if after else None


async def counted(office: Office, owner: str, id: str) -> Body:
    """A store with its files counted anew."""
    held = await office.objects.all(FILE, owner, parent=id)
    counts = Counter(body["status"] for body in held)
    names = ("in_progress", "completed", "failed", "cancelled")
    values = {
        "file_counts": {name: counts[name] for name in names} | {"total": len(held)},
        "usage_bytes": sum(body["usage_bytes"] for body in held),
        "last_active_at": int(time.time()),
    }

    def change(body: Body) -> Body:
        return body | values | {"version": body.get("version", 0) + 1}

    return await office.objects.change(STORE, owner, id, change)


async def attach(office: Office, owner: str, store_id: str, asked: FileRequest, batch_id: str | None = None) -> Body:
    """Take a file into a store: its text is cut into chunks now; one that is no text is there as failed.

    Raises:
        ApiError: 404 for a file that is not there, 400 for one that is there already.
    """
    file = await files.find_file(office, owner, asked.file_id)
    if await office.objects.find(FILE, owner, file["id"], parent=store_id) is not None:
        raise ApiError(400, f"the file {file['id']!r} is in the store already", code="file_exists", param="file_id")
    content = await asyncio.to_thread(office.files.read, file["id"])
    size, overlap = (asked.chunking_strategy or Chunking(type="auto")).sizes()
    text, error = _text_of(content)
    chunks = await asyncio.to_thread(chunks_of, text, size, overlap) if text else []
    if len(chunks) > MAX_CHUNKS:
        error, chunks = {"code": "invalid_file", "message": f"the file gives more than {MAX_CHUNKS} chunks"}, []
    body: Body = {
        "id": file["id"],
        "object": FILE,
        "created_at": int(time.time()),
        "vector_store_id": store_id,
        "status": "failed" if error else "completed",
        "last_error": error,
        "usage_bytes": sum(len(chunk.encode()) for chunk in chunks),
        "attributes": asked.attributes or {},
        "chunking_strategy": {
            "type": "static",
            "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap},
        },
        "filename": file["filename"],
        "batch": batch_id,
    }
    await office.objects.add(FILE, owner, body, parent=store_id)
    await office.objects.add(CHUNKS, owner, {"id": file["id"], "texts": chunks}, parent=store_id)
    return body


def _text_of(content: bytes) -> tuple[str, dict[str, str] | None]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "", {"code": "unsupported_file", "message": "the file is not text in UTF-8"}
    if "\0" in text:
        return "", {"code": "unsupported_file", "message": "the file holds bytes that are no text"}
    if not text.strip():
        return "", {"code": "invalid_file", "message": "the file is empty"}
    return text, None


async def detach(office: Office, owner: str, store_id: str, file_id: str) -> None:
    """Take a file out of a store.

    Raises:
        ApiError: 404.
    """
    await office.objects.drop(FILE, owner, file_id, parent=store_id)
    if await office.objects.find(CHUNKS, owner, file_id, parent=store_id) is not None:
        await office.objects.drop(CHUNKS, owner, file_id, parent=store_id)


class Indexes:
    """The indexes that were searched last, each for one state of its store."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Index]] = OrderedDict()

    async def of(self, office: Office, owner: str, store: Body) -> Index:
        """The index of a store as it is now."""
        id, version = store["id"], store.get("version", 0)
        if id not in self._kept or self._kept[id][0] != version:
            rows = await office.objects.all(CHUNKS, owner, parent=id)
            chunks = [Chunk(row["id"], text) for row in rows for text in row["texts"]]
            self._kept[id] = (version, await asyncio.to_thread(Index, chunks))
        self._kept.move_to_end(id)
        while len(self._kept) > INDEXES:
            self._kept.popitem(last=False)
        return self._kept[id][1]


def shown(body: Body) -> Body:
    """A file or store as OpenAI clients read it."""
    hidden: tuple[Any, ...] = ("filename", "batch", "version")
    return {name: value for name, value in body.items() if name not in hidden}
