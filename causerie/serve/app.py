"""The application: routes of the API under their three prefixes, health, and what other rooms add."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from causerie.core import say
from causerie.serve.door import Doorkeeper, Visitor
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.events import Drain
from causerie.serve.gate import Gate
from causerie.serve.health import METRICS, alive, health
from causerie.serve.openapi import DOCUMENT
from causerie.serve.pool import EnginePool
from causerie.serve.routes import Office, guarded, starlette_routes
from causerie.serve.table import TABLE, resume_work
from causerie.store import Store

MEASURE_SECONDS: Final = 0.25
"""How often the process's memory is looked at."""

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
"""What a room does around the server's life: work before `yield` comes before the first request."""


def create_app(
    pool: EnginePool,
    *,
    store: Store | None = None,
    keys_required: bool = False,
    hosts: Sequence[str] = (),
    routes: Sequence[BaseRoute] = (),
    lifespans: Sequence[Lifespan] = (),
    workspace: Path | None = None,
    lenient: bool = False,
    visitor: Visitor | None = None,
) -> Starlette:
    """The ASGI application.

    Args:
        pool: the served models; closed when the application ends.
        store: API keys and usage; None meters nothing.
        keys_required: refuse API requests without a valid key (needs `store`).
        hosts: further host names that the server is reached by in single-user mode.
        routes: other rooms' routes, tried before the API's; they guard themselves.
        lifespans: entered in order when the server starts (engines are loaded in one of them), left in reverse.
        workspace: where files are kept and training runs; None serves neither.
        lenient: leave out request fields that cannot be honoured, naming them in a header, instead of refusing them.
        visitor: knows signed-in people by their session, for requests without a key.

    Raises:
        CauserieError: CAU-6007 when a route does not say what its caller must be allowed to do.
    """
    door = Doorkeeper(store, required=keys_required, hosts=hosts, visitor=visitor)
    office = Office(pool, store, door, Drain(), workspace, lenient)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(pool.close)
            for lifespan in lifespans:
                await stack.enter_async_context(lifespan(app))
            stack.push_async_callback(office.replays.close)
            stack.push_async_callback(office.workers.close)
            await resume_work(office)
            watch = asyncio.create_task(_watch(pool.gate))
            stack.callback(watch.cancel)
            yield

    app = Starlette(
        routes=[*routes, *_plain_routes(office), *starlette_routes(office, TABLE)],
        exception_handlers={HTTPException: _http_error, Exception: _failure},
        lifespan=life,
    )
    app.state.office = office
    return app


def _plain_routes(office: Office) -> list[Route]:
    """What is not of OpenAI's API: how the server is, and what it answers to."""
    return [
        Route("/health", health, methods=["GET"]),
        Route("/health/live", alive, methods=["GET"]),
        Route("/metrics", guarded(office, METRICS), methods=["GET"]),
        Route("/openapi.json", guarded(office, DOCUMENT), methods=["GET"]),
    ]


async def _watch(gate: Gate) -> None:
    """Keep the gate's view of the process's memory fresh, and tell when it stops taking work for it."""
    refusing = False
    while True:
        gate.measure()
        if refusing != (gate.stage >= 2):
            refusing = not refusing
            say(f"memory grew by {gate.memory / 2**20:.0f} MiB: {'refusing' if refusing else 'taking'} requests")
        await asyncio.sleep(MEASURE_SECONDS)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "not_found", 405: "method_not_allowed"}
    message = "there is nothing here" if error.status_code == 404 else error.detail
    return ApiError(error.status_code, message, code=known.get(error.status_code)).response()


async def _failure(request: Request, error: Exception) -> Response:
    return as_api_error(error).response()
