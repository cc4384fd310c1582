"""Stored objects of the API: OpenAI-shaped JSON documents of a project, found by id, changed and listed in pages.

Every call names the owner, so that no route can reach another project's object; only the workers that go on after a
restart look across owners.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Select, delete, insert, select, update
from starlette.requests import Request

from causerie.serve.errors import ApiError
from causerie.serve.limits import MAX_NAME, MAX_PAGE, PAGE
from causerie.store import Store, check_text, now, objects

Body = dict[str, Any]
Order = Literal["asc", "desc"]
ORDERS: Final[Mapping[str, Order]] = {"asc": "asc", "ascending": "asc", "desc": "desc", "descending": "desc"}
CHUNK: Final = 200
"""Rows read at once while a list is filtered."""


@dataclass(frozen=True)
class Page:
    """What a list request asks for: objects after or before one, how many, in which order of creation."""

    after: str | None = None
    before: str | None = None
    limit: int = PAGE
    order: Order = "desc"


def page_of(request: Request, *, most: int = MAX_PAGE, default: int = PAGE, order: Order = "desc") -> Page:
    """The page that a request's query asks for; a limit of 0 asks for no rows.

    Raises:
        ApiError: 400 for a limit or order that is none.
    """
    query = request.query_params
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) > most:
        raise ApiError(400, f"limit is not a whole number from 0 to {most}", code="invalid_value", param="limit")
    asked = query.get("order", order)
    if asked not in ORDERS:
        raise ApiError(400, "order is neither asc nor desc", code="invalid_value", param="order")
    return Page(_cursor(query.get("after")), _cursor(query.get("before")), int(text), ORDERS[asked])


def asked_metadata(request: Request) -> dict[str, str]:
    """The metadata that a list is asked to be of: `?metadata[KEY]=VALUE`."""
    query = request.query_params.items()
    return {key[9:-1]: value for key, value in query if key.startswith("metadata[") and key.endswith("]")}


def _cursor(value: str | None) -> str | None:
    return value[:MAX_NAME].replace("\0", "") if value else None


def list_of(rows: Sequence[Body], has_more: bool) -> Body:
    """OpenAI's list object."""
    ends = {"first_id": rows[0]["id"] if rows else None, "last_id": rows[-1]["id"] if rows else None}
    return {"object": "list", "data": list(rows), **ends, "has_more": has_more}


class Objects:
    """The stored objects. Every method may be called from any task of one event loop.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rank = 0

    async def add(self, kind: str, owner: str, *bodies: Body, parent: str = "") -> Body:
        """Store new objects in this order; returns the last. They have an `id` and may have a `status`.

        Raises:
            CauserieError: CAU-1109 when an id is taken, CAU-1110 for a text that cannot be stored.
        """
        rows = []
        for body in bodies:
            check_text(body, kind)
            self._rank = max(self._rank + 1, time.time_ns())
            row = {"kind": kind, "parent": parent, "id": body["id"], "owner": owner, "rank": self._rank}
            rows.append(row | {"created": now(), "status": body.get("status"), "body": body})
        if rows:
            await asyncio.wrap_future(self._store.submit((insert(objects), rows)))
        return bodies[-1] if bodies else {}

    async def find(self, kind: str, owner: str, id: str, *, parent: str = "") -> Body | None:
        """An object, or None."""
        row = await self._first(select(objects.c.body).where(*_is(kind, owner, id, parent)))
        return None if row is None else dict(row.body)

    async def get(self, kind: str, owner: str, id: str, *, parent: str = "") -> Body:
        """An object.

        Raises:
            ApiError: 404.
        """
        found = await self.find(kind, owner, id, parent=parent)
        if found is None:
            raise no_such(kind, id)
        return found

    async def change(
        self, kind: str, owner: str, id: str, work: Callable[[Body], Body | None], *, parent: str = ""
    ) -> Body:
        """Replace an object by what `work` makes of it (None leaves it), in one transaction; returns the result.

        Raises:
            ApiError: 404, and what `work` raises.
        """
        where = _is(kind, owner, id, parent)

        def within(connection: Connection) -> Body:
            row = connection.execute(select(objects.c.body).where(*where)).first()
            if row is None:
                raise no_such(kind, id)
            before = dict(row.body)
            after = work(dict(before))
            if after is None or after == before:
                return before
            check_text(after, kind)
            connection.execute(update(objects).where(*where).values(body=after, status=after.get("status")))
            return after

        return await asyncio.wrap_future(self._store.submit_work(within))

    async def set(self, kind: str, owner: str, id: str, *, parent: str = "", **values: Any) -> Body:
        """Set fields of an object; returns it.

        Raises:
            ApiError: 404.
        """
        return await self.change(kind, owner, id, lambda body: body | values, parent=parent)

    async def drop(self, kind: str, owner: str, id: str, *, parent: str = "") -> None:
        """Delete an object.

        Raises:
            ApiError: 404.
        """
        gone = await asyncio.wrap_future(self._store.submit(delete(objects).where(*_is(kind, owner, id, parent))))
        if not gone:
            raise no_such(kind, id)

    async def drop_children(self, kind: str, owner: str, parent: str) -> None:
        """Delete all objects of a kind that belong to another."""
        where = (objects.c.kind == kind, objects.c.owner == owner, objects.c.parent == parent)
        await asyncio.wrap_future(self._store.submit(delete(objects).where(*where)))

    async def all(self, kind: str, owner: str, *, parent: str = "") -> list[Body]:
        """Every object of a kind, oldest first."""
        query = _listed(kind, owner, parent).order_by(objects.c.rank)
        return [dict(row.body) for row in await asyncio.to_thread(self._store.read, query)]

    async def page(
        self, kind: str, owner: str, page: Page, *, parent: str = "", keep: Callable[[Body], bool] | None = None
    ) -> Body:
        """One page of a list, as the API gives it; `keep` filters.

        Raises:
            ApiError: 404 when the object to list from is not there.
        """
        rising = page.order == "asc"
        query = _listed(kind, owner, parent)
        if page.after:
            rank = await self._rank_of(kind, owner, page.after, parent)
            query = query.where(objects.c.rank > rank if rising else objects.c.rank < rank)
        if page.before:
            rank = await self._rank_of(kind, owner, page.before, parent)
            query = query.where(objects.c.rank < rank if rising else objects.c.rank > rank)
        query = query.order_by(objects.c.rank if rising else objects.c.rank.desc())
        if page.limit == 0:
            return list_of([], False)
        rows = await asyncio.to_thread(self._matching, query, page.limit + 1, keep)
        return list_of(rows[: page.limit], len(rows) > page.limit)

    def _matching(self, query: Select[Any], wanted: int, keep: Callable[[Body], bool] | None) -> list[Body]:
        found: list[Body] = []
        size = wanted if keep is None else max(CHUNK, wanted)
        for offset in range(0, 10**9, size):
            rows = [dict(row.body) for row in self._store.read(query.limit(size).offset(offset))]
            found += [body for body in rows if keep is None or keep(body)]
            if len(rows) < size or len(found) >= wanted:
                break
        return found[:wanted]

    async def unfinished(self, kind: str, statuses: Sequence[str]) -> list[tuple[str, str, Body]]:
        """Owner, parent and body of every object of a kind with one of these statuses, oldest first: for workers."""
        query = select(objects.c.owner, objects.c.parent, objects.c.body)
        query = query.where(objects.c.kind == kind, objects.c.status.in_(statuses)).order_by(objects.c.rank)
        rows = await asyncio.to_thread(self._store.read, query)
        return [(row.owner, row.parent, dict(row.body)) for row in rows]

    async def _rank_of(self, kind: str, owner: str, id: str, parent: str) -> int:
        row = await self._first(select(objects.c.rank).where(*_is(kind, owner, id, parent)))
        if row is None:
            raise no_such(kind, id)
        return int(row.rank)

    async def _first(self, query: Select[Any]) -> Any:
        return await asyncio.to_thread(self._store.first, query)


def _is(kind: str, owner: str, id: str, parent: str) -> tuple[Any, ...]:
    id = id.replace("\0", "")
    return objects.c.kind == kind, objects.c.parent == parent, objects.c.id == id, objects.c.owner == owner


def _listed(kind: str, owner: str, parent: str) -> Select[Any]:
    return select(objects.c.body).where(objects.c.kind == kind, objects.c.owner == owner, objects.c.parent == parent)


def no_such(kind: str, id: str) -> ApiError:
    """404: there is no such object (or it is another project's)."""
    return ApiError(404, f"no {kind} has the id {id[:MAX_NAME]!r}", code="not_found", param="id")


def deleted(kind: str, id: str) -> Body:
    """The answer to a deletion."""
    return {"id": id, "object": kind, "deleted": True}
