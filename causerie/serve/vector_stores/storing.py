"""What a vector store holds: its files, cut into chunks as they come in, and the index over them."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from causerie.serve import files
from causerie.serve.embeddings import embed
from causerie.serve.errors import ApiError
from causerie.serve.gate import Asking
from causerie.serve.limits import MAX_CHUNKS
from causerie.serve.metering import Meter
from causerie.serve.objects import Body
from causerie.serve.routes import Office
from causerie.serve.vector_stores.ranking import Chunk, Index, chunks_of
from causerie.serve.vector_stores.shapes import Chunking, FileRequest

STORE: Final = "vector_store"
FILE: Final = "vector_store.file"
BATCH: Final = "vector_store.files_batch"
CHUNKS: Final = "vector_store.chunks"
DAY: Final = 24 * 3600
AT_ONCE: Final = 32
"""Chunks that the engine is given at once."""
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


async def attachable(office: Office, owner: str, store_id: str, ids: Iterable[str]) -> None:
    """Check that files are there and not in the store yet, before any of them is taken in.

    Raises:
        ApiError: 404, 400.
    """
    for id in ids:
        await files.find_file(office, owner, id)
        if await office.objects.find(FILE, owner, id, parent=store_id) is not None:
            raise ApiError(400, f"the file {id!r} is in the store already", code="file_exists", param="file_id")


async def attach(office: Office, owner: str, store: Body, asked: FileRequest, batch_id: str | None = None) -> Body:
    """Take a file into a store: its text is cut into chunks now; one that is no text is there as failed.

    Raises:
        ApiError: 404 for a file that is not there, 400 for one that is there already.
    """
    store_id = store["id"]
    await attachable(office, owner, store_id, [asked.file_id])
    file = await files.find_file(office, owner, asked.file_id)
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
    kept: Body = {"id": file["id"], "texts": chunks}
    if store.get("embedding_model") and chunks:
        key, vectors = await embedded(office, owner, store["embedding_model"], chunks)
        kept |= {"key": key, "vectors": [packed(vector) for vector in vectors]}
    await office.objects.add(FILE, owner, body, parent=store_id)
    await office.objects.add(CHUNKS, owner, kept, parent=store_id)
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
        self._kept: OrderedDict[str, tuple[tuple[int, str | None], Index]] = OrderedDict()

    async def of(self, office: Office, owner: str, store: Body, key: str | None = None) -> Index:
        """The index of a store as it is now, with the embeddings made by the weights `key`."""
        id, version = store["id"], (store.get("version", 0), key)
        if id not in self._kept or self._kept[id][0] != version:
            rows = await office.objects.all(CHUNKS, owner, parent=id)
            chunks = [chunk for row in rows for chunk in _chunks(row, key)]
            self._kept[id] = (version, await asyncio.to_thread(Index, chunks))
        self._kept.move_to_end(id)
        while len(self._kept) > INDEXES:
            self._kept.popitem(last=False)
        return self._kept[id][1]


def _chunks(row: Body, key: str | None) -> list[Chunk]:
    """A file's chunks; embeddings of other weights than `key` are left out."""
    texts = row["texts"]
    fits = key is not None and row.get("key") == key
    vectors = [unpacked(text) for text in row["vectors"]] if fits else [None] * len(texts)
    return [Chunk(row["id"], text, vector) for text, vector in zip(texts, vectors, strict=True)]


async def embedded(office: Office, owner: str, model: str, texts: Sequence[str]) -> tuple[str, list[list[float]]]:
    """The key of a served model's weights and its embeddings of texts, metered; long texts are cut to what it reads.

    Raises:
        CauserieError: CAU-6003, CAU-6006. ApiError: 400 for a model without embeddings.
    """
    async with office.pool.lease(model, owner) as served:
        room = served.max_seq_len
        batch = [[served.tokenizer.eot_id, *served.tokenizer.encode(text)][:room] for text in texts]
        tokens = sum(map(len, batch))
        meter = Meter(office.store, "vector_stores embeddings", None, project=owner, tally=office.tally)
        async with office.pool.gate.admit(Asking(tenant=owner), 1, tokens, served.lane, meter):
            with meter:
                meter.version, meter.prompt_tokens = served.version, tokens
                parts = [batch[first : first + AT_ONCE] for first in range(0, len(batch), AT_ONCE)]
                return served.version.key, [vector for part in parts for vector in await embed(served, part)]


def packed(vector: Sequence[float]) -> str:
    """A vector as text: float32, little-endian, base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def unpacked(text: str) -> tuple[float, ...]:
    """The vector in such a text."""
    raw = base64.b64decode(text)
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def shown(body: Body) -> Body:
    """A file or store as OpenAI clients read it; a store says how it ranks."""
    hidden: tuple[Any, ...] = ("filename", "batch", "version")
    kept = {name: value for name, value in body.items() if name not in hidden}
    if body["object"] == STORE:
        kept["ranking"] = "bm25+embeddings" if body.get("embedding_model") else "bm25"
    return kept
