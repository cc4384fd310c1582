"""The operations of v1/vector_stores."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.keys import Principal
from causerie.serve.objects import Body, page_of
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.vector_stores.ranking import fused, passes
from causerie.serve.vector_stores.shapes import (
    BatchRequest,
    FileRequest,
    FileUpdate,
    SearchRequest,
    StoreRequest,
    StoreUpdate,
)
from causerie.serve.vector_stores.storing import (
    BATCH,
    CHUNKS,
    FILE,
    STORE,
    attach,
    attachable,
    counted,
    detach,
    embedded,
    expiry,
    get_store,
    shown,
)
from causerie.store import new_id

RESULTS: Final = 10
STALE: Final = 60
"""Seconds after which a search is written down as activity."""


async def create_store(office: Office, request: Request, principal: Principal) -> Response:
    """Make a store, with files where they are named."""
    asked = await read_shape(request, StoreRequest)
    moment = int(time.time())
    body: Body = {
        "id": new_id("vs"),
        "object": STORE,
        "created_at": moment,
        "name": asked.name or "",
        "description": asked.description,
        "status": "completed",
        "usage_bytes": 0,
        "file_counts": {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0},
        "expires_after": asked.expires_after.model_dump() if asked.expires_after else None,
        "last_active_at": moment,
        "metadata": asked.metadata or {},
        "embedding_model": asked.embedding_model,
    }
    body["expires_at"] = expiry(body)
    await attachable(office, principal.owner, body["id"], asked.file_ids or ())
    if asked.embedding_model is not None:
        office.pool.get(asked.embedding_model, principal.owner)
    await office.objects.add(STORE, principal.owner, body)
    for id in dict.fromkeys(asked.file_ids or ()):
        wanted = FileRequest(file_id=id, chunking_strategy=asked.chunking_strategy)
        await attach(office, principal.owner, body, wanted)
    if asked.file_ids:
        body = await counted(office, principal.owner, body["id"])
    return JSONResponse(shown(body))


async def list_stores(office: Office, request: Request, principal: Principal) -> Response:
    """The project's stores."""
    return JSONResponse(_shown_page(await office.objects.page(STORE, principal.owner, page_of(request))))


async def read_store(office: Office, request: Request, principal: Principal) -> Response:
    """One store."""
    return JSONResponse(shown(await get_store(office, principal.owner, _id(request))))


async def update_store(office: Office, request: Request, principal: Principal) -> Response:
    """Rename a store, or change its metadata or expiry."""
    asked = await read_shape(request, StoreUpdate)
    values = asked.model_dump(exclude_none=True)
    if "expires_after" in asked.model_fields_set:
        values["expires_after"] = asked.expires_after and asked.expires_after.model_dump()

    def change(body: Body) -> Body:
        changed = body | values
        return changed | {"expires_at": expiry(changed)}

    return JSONResponse(shown(await office.objects.change(STORE, principal.owner, _id(request), change)))


async def delete_store(office: Office, request: Request, principal: Principal) -> Response:
    """Delete a store; the files themselves stay."""
    owner, id = principal.owner, _id(request)
    await office.objects.drop(STORE, owner, id)
    for kind in (FILE, CHUNKS, BATCH):
        await office.objects.drop_children(kind, owner, id)
    return JSONResponse({"id": id, "object": "vector_store.deleted", "deleted": True})


async def create_file(office: Office, request: Request, principal: Principal) -> Response:
    """Take a file in."""
    asked = await read_shape(request, FileRequest)
    owner, id = principal.owner, _id(request)
    body = await attach(office, owner, await get_store(office, owner, id), asked)
    await counted(office, owner, id)
    return JSONResponse(shown(body))


async def list_files(office: Office, request: Request, principal: Principal) -> Response:
    """A store's files, of one status where the query says `filter`."""
    await get_store(office, principal.owner, _id(request))
    return JSONResponse(await _files(office, request, principal, None))


async def _files(office: Office, request: Request, principal: Principal, batch: str | None) -> Body:
    status = request.query_params.get("filter")

    def keep(body: Body) -> bool:
        return status in (None, body["status"]) and batch in (None, body.get("batch"))

    page = page_of(request)
    return _shown_page(await office.objects.page(FILE, principal.owner, page, parent=_id(request), keep=keep))


async def read_file(office: Office, request: Request, principal: Principal) -> Response:
    """One file of a store."""
    return JSONResponse(shown(await _file(office, request, principal)))


async def update_file(office: Office, request: Request, principal: Principal) -> Response:
    """Give a file other attributes."""
    asked = await read_shape(request, FileUpdate)
    file = request.path_params["file_id"]
    values = {"attributes": asked.attributes or {}}
    body = await office.objects.set(FILE, principal.owner, file, parent=_id(request), **values)
    return JSONResponse(shown(body))


async def delete_file(office: Office, request: Request, principal: Principal) -> Response:
    """Take a file out; it stays among the project's files."""
    owner, id, file = principal.owner, _id(request), str(request.path_params["file_id"])
    await detach(office, owner, id, file)
    await counted(office, owner, id)
    return JSONResponse({"id": file, "object": "vector_store.file.deleted", "deleted": True})


async def read_content(office: Office, request: Request, principal: Principal) -> Response:
    """The chunks of a file."""
    file = await _file(office, request, principal)
    found = await office.objects.find(CHUNKS, principal.owner, file["id"], parent=_id(request))
    rows = [{"type": "text", "text": text} for text in (found or {"texts": []})["texts"]]
    page = {"object": "vector_store.file_content.page", "data": rows, "has_more": False, "next_page": None}
    return JSONResponse(page | {"filename": file["filename"], "attributes": file["attributes"]})


async def _file(office: Office, request: Request, principal: Principal) -> Body:
    return await office.objects.get(FILE, principal.owner, request.path_params["file_id"], parent=_id(request))


async def create_batch(office: Office, request: Request, principal: Principal) -> Response:
    """Take several files in."""
    asked = await read_shape(request, BatchRequest)
    owner, id = principal.owner, _id(request)
    store = await get_store(office, owner, id)
    wanted = asked.requests()
    await attachable(office, owner, id, [each.file_id for each in wanted])
    batch: Body = {
        "id": new_id("vsfb"),
        "object": BATCH,
        "created_at": int(time.time()),
        "vector_store_id": id,
        "status": "completed",
    }
    found = [await attach(office, owner, store, each, batch["id"]) for each in wanted]
    counts = Counter(body["status"] for body in found)
    names = ("in_progress", "completed", "failed", "cancelled")
    batch["file_counts"] = {name: counts[name] for name in names} | {"total": len(found)}
    await office.objects.add(BATCH, owner, batch, parent=id)
    await counted(office, owner, id)
    return JSONResponse(batch)


async def read_batch(office: Office, request: Request, principal: Principal) -> Response:
    """One batch of files."""
    return JSONResponse(await _batch(office, request, principal))


async def cancel_batch(office: Office, request: Request, principal: Principal) -> Response:
    """Stop a batch that is under way; batches here are done when they are answered."""
    body = await _batch(office, request, principal)
    if body["status"] not in ("in_progress", "cancelled"):
        raise ApiError(400, f"the batch is {body['status']}", code="invalid_batch_status")
    done = await office.objects.set(BATCH, principal.owner, body["id"], parent=_id(request), status="cancelled")
    return JSONResponse(done)


async def list_batch_files(office: Office, request: Request, principal: Principal) -> Response:
    """The files of a batch."""
    body = await _batch(office, request, principal)
    return JSONResponse(await _files(office, request, principal, body["id"]))


async def _batch(office: Office, request: Request, principal: Principal) -> Body:
    return await office.objects.get(BATCH, principal.owner, request.path_params["batch_id"], parent=_id(request))


async def search(office: Office, request: Request, principal: Principal) -> Response:
    """The chunks that match a question best: by BM25, fused with embeddings where the store names a model."""
    asked = await read_shape(request, SearchRequest)
    owner = principal.owner
    store = await get_store(office, owner, _id(request))
    if store["status"] == "expired":
        raise ApiError(400, "the vector store is expired", code="expired", param="vector_store_id")
    held = {body["id"]: body for body in await office.objects.all(FILE, owner, parent=store["id"])}
    allowed = {id for id, body in held.items() if passes(asked.filters, body["attributes"])}
    queries = [asked.query] if isinstance(asked.query, str) else asked.query
    key, vectors = await _vectors(office, owner, store, queries)
    index = await office.indexes.of(office, owner, store, key)
    best: dict[Any, float] = {}
    for at, query in enumerate(queries):
        ranked = index.search(query)
        if vectors:
            ranked = fused([chunk for _, chunk in ranked], index.near(vectors[at]))
        for score, chunk in ranked:
            best[chunk] = max(score, best.get(chunk, 0.0))
    await _used(office, owner, store)
    least = (asked.ranking_options.score_threshold if asked.ranking_options else None) or 0.0
    rows = [
        {
            "file_id": chunk.file_id,
            "filename": held[chunk.file_id]["filename"],
            "score": score,
            "attributes": held[chunk.file_id]["attributes"],
            "content": [{"type": "text", "text": chunk.text}],
        }
        for chunk, score in sorted(best.items(), key=lambda pair: -pair[1])
        if chunk.file_id in allowed and score >= least
    ]
    most = asked.max_num_results or RESULTS
    page = {"object": "vector_store.search_results.page", "search_query": queries, "data": rows[:most]}
    headers = {"x-causerie-ranking": "bm25+embeddings" if vectors else "bm25"}
    return JSONResponse(page | {"has_more": len(rows) > most, "next_page": None}, headers=headers)


async def _vectors(
    office: Office, owner: str, store: Body, queries: list[str]
) -> tuple[str | None, list[list[float]] | None]:
    """The queries' embeddings and whose they are; none where the store names no model or it is not served now."""
    model = store.get("embedding_model")
    if not model or not all(queries) or all(name != model for name, _ in office.pool.models()):
        return None, None
    return await embedded(office, owner, model, queries)


async def _used(office: Office, owner: str, store: Body) -> None:
    """Put off the store's expiry: it is being searched."""
    moment = int(time.time())
    if store.get("expires_after") and moment - store["last_active_at"] >= STALE:
        await office.objects.set(STORE, owner, store["id"], last_active_at=moment)


def _shown_page(page: Body) -> Body:
    return page | {"data": [shown(body) for body in page["data"]]}


def _id(request: Request) -> str:
    return str(request.path_params["vector_store_id"])


ONE: Final = "vector_stores/{vector_store_id}"
A_FILE: Final = f"{ONE}/files/{{file_id}}"
A_BATCH: Final = f"{ONE}/file_batches/{{batch_id}}"
ROUTES: Final = (
    ApiRoute("POST", "vector_stores", create_store, "vector_store", "create", body=StoreRequest),
    ApiRoute("GET", "vector_stores", list_stores, "vector_store", "read"),
    ApiRoute("GET", ONE, read_store, "vector_store", "read"),
    ApiRoute("POST", ONE, update_store, "vector_store", "update", body=StoreUpdate),
    ApiRoute("DELETE", ONE, delete_store, "vector_store", "delete"),
    ApiRoute("POST", f"{ONE}/search", search, "vector_store", "read", body=SearchRequest),
    ApiRoute("POST", f"{ONE}/files", create_file, "vector_store", "update", body=FileRequest),
    ApiRoute("GET", f"{ONE}/files", list_files, "vector_store", "read"),
    ApiRoute("GET", A_FILE, read_file, "vector_store", "read"),
    ApiRoute("POST", A_FILE, update_file, "vector_store", "update", body=FileUpdate),
    ApiRoute("DELETE", A_FILE, delete_file, "vector_store", "update"),
    ApiRoute("GET", f"{A_FILE}/content", read_content, "vector_store", "read"),
    ApiRoute("POST", f"{ONE}/file_batches", create_batch, "vector_store", "update", body=BatchRequest),
    ApiRoute("GET", A_BATCH, read_batch, "vector_store", "read"),
    ApiRoute("POST", f"{A_BATCH}/cancel", cancel_batch, "vector_store", "update"),
    ApiRoute("GET", f"{A_BATCH}/files", list_batch_files, "vector_store", "read"),
)
