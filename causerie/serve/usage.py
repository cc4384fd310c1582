"""v1/organization/usage and costs: what was metered, in buckets of time, for whoever looks after the organization."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.errors import ApiError
from causerie.serve.keys import DEFAULT_PROJECT, Principal
from causerie.serve.objects import Body
from causerie.serve.prices import PRICE, amount, price_at
from causerie.serve.routes import ApiRoute, Endpoint, Office
from causerie.store import api_keys, usage

WIDTHS: Final = {"1m": 60, "1h": 3600, "1d": 86_400}
MOST: Final = {"1m": 1440, "1h": 168, "1d": 31}
"""Buckets of one page, at most."""
USUAL: Final = {"1m": 60, "1h": 24, "1d": 7}
GROUPS: Final = {"project_id", "user_id", "api_key_id", "model", "batch", "line_item"}


@dataclass(frozen=True)
class Window:
    """Which buckets a request asks for."""

    start: int
    end: int
    width: int
    count: int
    groups: tuple[str, ...]
    wanted: dict[str, set[str]]

    @property
    def page_end(self) -> int:
        """Where this page ends."""
        return min(self.end, self.start + self.width * self.count)


def window_of(request: Request) -> Window:
    """The window in a request's query.

    Raises:
        ApiError: 400 naming what does not fit.
    """
    query = request.query_params
    label = query.get("bucket_width", "1d")
    if label not in WIDTHS:
        raise ApiError(400, "bucket_width is none of 1m, 1h, 1d", code="invalid_value", param="bucket_width")
    width = WIDTHS[label]
    start = _number(query.get("start_time"), "start_time", None)
    end = _number(query.get("end_time"), "end_time", int(time.time()) + 1)
    count = _number(query.get("limit"), "limit", USUAL[label])
    if count > MOST[label]:
        raise ApiError(400, f"limit is above {MOST[label]}", code="invalid_value", param="limit")
    page = query.get("page")
    if page is not None and page.isascii() and page.isdigit():
        start = max(start, int(page[:12]))
    groups = tuple(query.getlist("group_by[]") or query.getlist("group_by"))
    if not set(groups) <= GROUPS:
        raise ApiError(400, f"group_by is none of {', '.join(sorted(GROUPS))}", code="invalid_value", param="group_by")
    names = {"project_ids": "project_id", "user_ids": "user_id", "api_key_ids": "api_key_id", "models": "model"}
    wanted = {ours: set(query.getlist(f"{theirs}[]")) for theirs, ours in names.items() if query.getlist(f"{theirs}[]")}
    return Window(start - start % width, end, width, count, groups, wanted)


def _number(text: str | None, name: str, default: int | None) -> int:
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 13):
        raise ApiError(400, f"{name} is not a whole number", code="invalid_value", param=name)
    return int(text)


async def _rows(office: Office, window: Window, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Metered requests of some routes in the window, with the project and user of their keys."""
    if office.store is None or window.page_end <= window.start:
        return []
    query = (
        select(usage, api_keys.c.project.label("key_project"), api_keys.c.user)
        .join_from(usage, api_keys, usage.c.key_id == api_keys.c.id, isouter=True)
        .where(usage.c.time >= window.start, usage.c.time < window.page_end)
    )
    found = []
    for row in await asyncio.to_thread(office.store.read, query):
        if not any(kind in row.route for kind in kinds):
            continue
        value = {
            "time": row.time,
            "project_id": row.project or row.key_project or DEFAULT_PROJECT,
            "user_id": row.user,
            "api_key_id": row.key_id,
            "model": row.model,
            "batch": row.route.startswith("batch "),
            "input": row.prompt_tokens,
            "output": row.completion_tokens,
            "cached": row.cached_tokens or 0,
            "price": row.price,
        }
        if all(value[name] in allowed for name, allowed in window.wanted.items()):
            found.append(value)
    return found


def _paged(window: Window, rows: Iterable[dict[str, Any]], result: Any) -> Body:
    """OpenAI's page of buckets; `result(rows, group)` sums up one group."""
    buckets: dict[int, dict[tuple[Any, ...], list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        group = tuple(row.get(name) for name in window.groups)
        buckets[int(row["time"] - row["time"] % window.width)][group].append(row)
    data = []
    for start in range(window.start, window.page_end, window.width):
        groups = buckets.get(start, {})
        results = [result(found, dict(zip(window.groups, group, strict=True))) for group, found in groups.items()]
        end = min(start + window.width, window.end)
        data.append({"object": "bucket", "start_time": start, "end_time": end, "results": results})
    more = window.page_end < window.end and bool(window.count)
    return {"object": "page", "data": data, "has_more": more, "next_page": str(window.page_end) if more else None}


def _named(group: dict[str, Any]) -> Body:
    return {name: group.get(name) for name in ("project_id", "user_id", "api_key_id", "model", "batch")}


def _counting(kind: str, routes: tuple[str, ...], drawn: bool) -> Endpoint:
    """The operation for one kind of metered requests; kinds that this server does not serve have no rows."""

    async def endpoint(office: Office, request: Request, principal: Principal) -> Response:
        window = window_of(request)

        def result(rows: list[dict[str, Any]], group: dict[str, Any]) -> Body:
            body: Body = {"object": f"organization.usage.{kind}.result", **_named(group)}
            body |= {"input_tokens": sum(row["input"] for row in rows), "num_model_requests": len(rows)}
            body["input_cached_tokens"] = sum(row["cached"] for row in rows)
            if drawn:
                body |= {"output_tokens": sum(row["output"] for row in rows)}
            else:
                body.pop("batch")
            return body

        return JSONResponse(_paged(window, await _rows(office, window, routes), result))

    return endpoint


async def _nothing(office: Office, request: Request, principal: Principal) -> Response:
    """Usage of what this server does not meter: buckets without results."""
    return JSONResponse(_paged(window_of(request), [], None))


async def costs(office: Office, request: Request, principal: Principal) -> Response:
    """What the metered tokens cost by the price in force at the time, each currency by itself; models without a price
    cost nothing."""
    window = window_of(request)
    prices = sorted(await office.objects.all(PRICE, ""), key=lambda price: price["from"])
    versions = {price["id"]: price for price in prices}
    usual = prices[-1]["currency"] if prices else "usd"

    def result(rows: list[dict[str, Any]], group: dict[str, Any]) -> Body:
        return {
            "object": "organization.costs.result",
            "amount": {"value": sum(row["cost"] for row in rows), "currency": group["currency"]},
            "line_item": group.get("line_item"),
            "project_id": group.get("project_id"),
            "api_key_id": group.get("api_key_id"),
        }

    rows = await _rows(office, window, ("",))
    for row in rows:
        price = versions.get(row["price"]) or price_at(prices, row["model"], row["time"])
        row["line_item"] = row["model"]
        row["currency"] = price["currency"] if price else usual
        row["cost"] = amount(price, row["input"], row["cached"], row["output"]) if price else 0.0
    return JSONResponse(_paged(replace(window, groups=(*window.groups, "currency")), rows, result))


DRAWING: Final = ("completions", "responses", "graders", "evals", "fine_tuning", "api/chat")
UNMETERED: Final = (
    "audio_speeches",
    "audio_transcriptions",
    "code_interpreter_sessions",
    "decisions",
    "images",
    "vector_stores",
    "file_search_calls",
    "web_search_calls",
)
ROUTES: Final = (
    ApiRoute("GET", "organization/usage/completions", _counting("completions", DRAWING, True), "usage", "read"),
    ApiRoute("GET", "organization/usage/embeddings", _counting("embeddings", ("embeddings",), False), "usage", "read"),
    ApiRoute(
        "GET", "organization/usage/moderations", _counting("moderations", ("moderations",), False), "usage", "read"
    ),
    *(ApiRoute("GET", f"organization/usage/{kind}", _nothing, "usage", "read") for kind in UNMETERED),
    ApiRoute("GET", "organization/costs", costs, "usage", "read"),
)
