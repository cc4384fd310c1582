"""What the organization can look up: its audit log, its prices, its invoices, the scopes that keys can have."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any, Final

from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.keys import DEFAULT_PROJECT, Principal
from causerie.serve.objects import Body, list_of, page_of
from causerie.serve.organization.changing import change, put_object, store_of
from causerie.serve.organization.shapes import NewPrice
from causerie.serve.prices import PRICE, amount, price_at, price_book
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.scopes import ACTIONS, GROUPS, RESOURCES
from causerie.store import audit, new_id, usage


async def list_audit_logs(office: Office, request: Request, principal: Principal) -> Response:
    """The audit log, newest first; each entry holds the digest that the next one is chained to."""
    page, query = page_of(request), select(audit).order_by(audit.c.seq.desc())
    asked = request.query_params
    if page.after:
        query = query.where(audit.c.seq < _seq(page.after, "after"))
    for name, column in (("actor", audit.c.actor), ("event", audit.c.action), ("subject", audit.c.subject)):
        if name in asked:
            query = query.where(column == asked[name][:256].replace("\0", ""))
    rows = await asyncio.to_thread(store_of(office).read, query.limit(page.limit + 1))
    return JSONResponse(list_of([_entry(row) for row in rows[: page.limit]], len(rows) > page.limit))


def _entry(row: Any) -> Body:
    kind = "api_key" if row.actor.startswith("key_") else "user"
    return {
        "object": "organization.audit_log",
        "id": f"audit_log-{row.seq}",
        "type": row.action,
        "effective_at": int(row.created),
        "actor": {"type": kind, "id": row.actor},
        "subject": row.subject,
        "detail": row.detail,
        "hash": row.hash,
    }


def _seq(text: str, name: str) -> int:
    number = text.removeprefix("audit_log-")
    if not (number.isascii() and number.isdigit() and len(number) < 16):
        raise ApiError(400, f"{name} is no entry of the log", code="invalid_value", param=name)
    return int(number)


async def list_prices(office: Office, request: Request, principal: Principal) -> Response:
    """Every price version, in the order in which they come into force."""
    return JSONResponse(list_of(await asyncio.to_thread(price_book(store_of(office)).prices), False))


async def create_price(office: Office, request: Request, principal: Principal) -> Response:
    """A price version from a moment on; none can be changed, and none can begin in the past.

    Raises:
        ApiError: 400 for one that would change what was charged already.
    """
    asked, moment = await read_shape(request, NewPrice), int(time.time())
    begin = moment + 1 if asked.from_ is None else asked.from_
    store = store_of(office)
    if begin <= moment and await asyncio.to_thread(store.first, select(usage.c.request_id)) is not None:
        raise ApiError(400, "a price cannot begin in the past", code="invalid_value", param="from")
    body: Body = {"object": "organization.price", "id": new_id("price"), "model": asked.model, "from": begin}
    body |= {"currency": asked.currency, "input": asked.input, "output": asked.output}
    body |= {"cached_input": asked.cached_input, "created_at": moment}
    detail = {name: value for name, value in body.items() if name not in ("object", "id")}
    await change(office, principal, "price.created", body["id"], lambda c: put_object(c, PRICE, body), detail)
    store.touch(PRICE)
    return JSONResponse(body)


async def invoice(office: Office, request: Request, principal: Principal) -> Response:
    """What every project owes for a span of time, computed from the usage rows and the price versions they name.

    A row without a price version, written before prices were kept with rows, is charged by the version in force then.
    """
    asked = request.query_params
    begin, end = (_moment(asked.get(name), name) for name in ("start_time", "end_time"))
    store = store_of(office)
    prices = await asyncio.to_thread(price_book(store).prices)
    sums = (usage.c.prompt_tokens, usage.c.cached_tokens, usage.c.completion_tokens)
    grouped = (usage.c.project, usage.c.model, usage.c.price)
    query = select(*grouped, func.count(), *(func.coalesce(func.sum(each), 0) for each in sums), func.max(usage.c.time))
    query = query.where(usage.c.time >= begin, usage.c.time < end).group_by(*grouped).order_by(*grouped)
    if "project_id" in asked:
        query = query.where(func.coalesce(usage.c.project, DEFAULT_PROJECT) == asked["project_id"].replace("\0", ""))
    known, lines, totals = {price["id"]: price for price in prices}, [], defaultdict[str, float](float)
    for row in await asyncio.to_thread(store.read, query):
        project, model, price_id, requests, given, cached, drawn, last = tuple(row)
        price = known.get(price_id) or (price_at(prices, model, last) if price_id is None else None)
        owed = amount(price, int(given), int(cached), int(drawn)) if price else 0.0
        if price:
            totals[price["currency"]] += owed
        line: Body = {"project_id": project or DEFAULT_PROJECT, "model": model, "price_id": price and price["id"]}
        line |= {"requests": requests, "input_tokens": int(given), "cached_tokens": int(cached)}
        lines.append(line | {"output_tokens": int(drawn), "amount": owed, "currency": price and price["currency"]})
    body = {"object": "organization.invoice", "start_time": begin, "end_time": end, "lines": lines}
    return JSONResponse(body | {"totals": dict(totals)})


def _moment(text: str | None, name: str) -> int:
    if text is None and name == "end_time":
        return int(time.time()) + 1
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 13):
        raise ApiError(400, f"{name} is not a whole number", code="invalid_value", param=name)
    return int(text)


async def list_scopes(office: Office, request: Request, principal: Principal) -> Response:
    """The scopes that keys can have."""
    single = [{"id": f"{name}.{action}", "group": group} for name, group in RESOURCES.items() for action in ACTIONS]
    groups = [{"id": name, "group": None} for name in GROUPS]
    return JSONResponse(list_of([*groups, *single], False))


ROUTES: Final = (
    ApiRoute("GET", "organization/audit_logs", list_audit_logs, "audit_log", "read"),
    ApiRoute("GET", "organization/prices", list_prices, "price", "read"),
    ApiRoute("POST", "organization/prices", create_price, "price", "create", body=NewPrice),
    ApiRoute("GET", "organization/invoice", invoice, "usage", "read"),
    ApiRoute("GET", "organization/scopes", list_scopes, "project_key", "read"),
)
