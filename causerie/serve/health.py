"""How the server is: alive, ready, and in figures. None of these waits for an engine or for the database."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie import __version__
from causerie.serve.keys import Principal
from causerie.serve.metering import usage_log
from causerie.serve.metrics import CONTENT_TYPE, exposition
from causerie.serve.routes import ApiRoute, Office


def office_of(request: Request) -> Office:
    """What the application works with."""
    office: Office = request.app.state.office
    return office


async def health(request: Request) -> Response:
    """Whether the server takes work: 200, or 503 while it is ending, has no model yet, or is short of memory.

    "degraded" (200) means that answers go on while the database fails: what would be stored gets 503.
    """
    office = office_of(request)
    names = [name for name, _ in office.pool.models()]
    failing = office.store.failing if office.store is not None else None
    status = "ok" if names else "starting"
    if office.drain.leaving:
        status = "stopping"
    elif office.pool.gate.stage >= 2:
        status = "overloaded"
    elif names and failing is not None:
        status = "degraded"
    body: dict[str, Any] = {"status": status, "models": names, "version": __version__}
    body["answers"] = office.pool.gate.answers
    if failing is not None:
        body["database"] = {"code": failing.code, "cause": failing.cause}
    return JSONResponse(body, 200 if status in ("ok", "degraded") else 503)


async def alive(request: Request) -> Response:
    """Whether the process answers at all."""
    return JSONResponse({"status": "alive"})


async def metrics(office: Office, request: Request, principal: Principal) -> Response:
    """The figures of this process for Prometheus."""
    gate, store = office.pool.gate, office.store
    plain = {
        "answers_in_hand": ("Answers under way, waiting ones included.", gate.answers),
        "tokens_in_hand": ("Tokens that they may need.", gate.tokens),
        "requests_waiting": ("Requests whose turn has not come.", gate.waiting),
        "shedding_stage": ("0 no, 1 shortening, 2 refusing requests, 3 refusing connections.", gate.stage),
        "resident_bytes": ("Resident memory of the server process.", gate.resident),
        "open_streams": ("Event streams under way.", office.drain.streams),
        "database_failing": ("Whether the last commit failed.", store is not None and store.failing is not None),
        "writes_waiting": ("Writes that wait for their commit.", store.queued if store else 0),
        "usage_rows_waiting": ("Usage rows not written yet.", usage_log(store).waiting if store else 0),
        "usage_rows_dropped": ("Usage rows lost while the database failed.", usage_log(store).dropped if store else 0),
    }
    gauges: dict[str, Any] = {name: (help, [({}, float(value))]) for name, (help, value) in plain.items()}
    refused = [({"reason": reason}, float(count)) for reason, count in gate.refused.items()]
    gauges["refused"] = ("Requests that the gate refused, since the start.", refused)
    engines = [(name, getattr(served.engine, "stats", {})) for name, served in office.pool.models()]
    figures = [
        ({"model": name, "figure": figure}, float(value)) for name, stats in engines for figure, value in stats.items()
    ]
    gauges["engine"] = ("What each engine last told of itself.", figures)
    return Response(exposition(office.tally, gauges), media_type=CONTENT_TYPE)


METRICS: Final = ApiRoute("GET", "metrics", metrics, "usage", "read")
"""Served at /metrics, without a prefix."""
