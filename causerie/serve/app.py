"""The application: routes of the API under their three prefixes, health, and what other rooms add."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from causerie import __version__
from causerie.serve.chat_completions import create_chat_completion
from causerie.serve.completions import create_completion
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.events import Drain
from causerie.serve.keys import INFERENCE, Doorkeeper
from causerie.serve.models import get_model, list_models
from causerie.serve.pool import EnginePool
from causerie.serve.routes import Office, api_routes
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
) -> Starlette:
    """The ASGI application.

    Args:
        pool: the served models; closed when the application ends.
        store: API keys and usage; None meters nothing.
        keys_required: refuse API requests without a valid key (needs `store`).
        hosts: further host names that the server is reached by in single-user mode.
        routes: other rooms' routes, tried before the API's; they guard themselves.
        lifespans: entered in order when the server starts (engines are loaded in one of them), left in reverse.
    """
    office = Office(pool, store, Doorkeeper(store, required=keys_required, hosts=hosts), Drain())

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(pool.close)
            for lifespan in lifespans:
                await stack.enter_async_context(lifespan(app))
            yield

    app = Starlette(
        routes=[*routes, Route("/health", health, methods=["GET"]), *_api(office)],
        exception_handlers={HTTPException: _http_error, Exception: _failure},
        lifespan=life,
    )
    app.state.office = office
    return app


def _api(office: Office) -> list[Route]:
    """The API's routes: `v1` (OpenAI), `openai/v1` (Azure without api-version), `openai/deployments/NAME` (Azure)."""
    plain = ("/v1", "/openai/v1", "/openai")
    azure = (*plain[:2], "/openai/deployments/{deployment}")
    drawing = (("chat/completions", create_chat_completion), ("completions", create_completion))
    found: list[Route] = []
    for path, endpoint in drawing:
        found += api_routes(office, [f"{p}/{path}" for p in azure], endpoint, method="POST", scope=INFERENCE)
    found += api_routes(office, [f"{p}/models" for p in plain], list_models, method="GET", scope=INFERENCE)
    one = [f"{p}/models/{{model:path}}" for p in plain]
    return found + api_routes(office, one, get_model, method="GET", scope=INFERENCE)


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
