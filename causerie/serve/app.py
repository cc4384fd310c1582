"""The application: routes of the API under their three prefixes, health, and what other rooms add."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from causerie import __version__
from causerie.serve.door import Doorkeeper, Visitor
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.events import Drain
from causerie.serve.pool import EnginePool
from causerie.serve.routes import Office, starlette_routes
from causerie.serve.table import TABLE, resume_work
from causerie.store import Store

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
            yield

    app = Starlette(
        routes=[*routes, Route("/health", health, methods=["GET"]), *starlette_routes(office, TABLE)],
        exception_handlers={HTTPException: _http_error, Exception: _failure},
        lifespan=life,
    )
    app.state.office = office
    return app


async def health(request: Request) -> Response:
    """Whether the server takes work: 200, or 503 while it is ending or has no model yet."""
    office: Office = request.app.state.office
    names = [name for name, _ in office.pool.models()]
    status = "stopping" if office.drain.draining else "ok" if names else "starting"
    body = {"status": status, "models": names, "version": __version__, "answers": office.pool.gate.answers}
    return JSONResponse(body, 200 if status == "ok" else 503)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "not_found", 405: "method_not_allowed"}
    message = "there is nothing here" if error.status_code == 404 else error.detail
    return ApiError(error.status_code, message, code=known.get(error.status_code)).response()


async def _failure(request: Request, error: Exception) -> Response:
    return as_api_error(error).response()
