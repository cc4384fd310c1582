"""Routes that say what they need: every one names a scope, and is authorised as a route, never by a path's spelling."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from causerie.core import CauserieError
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.events import ClientGone, Drain
from causerie.serve.keys import Doorkeeper, Principal
from causerie.serve.metering import CLIENT_GONE
from causerie.serve.pool import EnginePool
from causerie.store import Store

log = logging.getLogger("causerie.serve")


@dataclass
class Office:
    """What the routes work with."""

    pool: EnginePool
    store: Store | None
    door: Doorkeeper
    drain: Drain


Endpoint = Callable[[Office, Request, Principal], Awaitable[Response]]
"""Answers a request of a known caller."""


def api_routes(office: Office, paths: Sequence[str], endpoint: Endpoint, *, method: str, scope: str) -> list[Route]:
    """One route per path for an endpoint, behind the door; errors become answers in OpenAI's shape."""

    async def answer(request: Request) -> Response:
        try:
            if office.drain.draining:
                raise ApiError(
                    503, "the server is stopping", type="server_error", code="server_stopping", retry_after=5
                )
            principal = await office.door.identify(request, scope)
            return await endpoint(office, request, principal)
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        except (ApiError, CauserieError) as error:
            return as_api_error(error).response()
        except Exception as error:
            log.exception("%s %s failed", method, request.scope["route"].path if "route" in request.scope else "")
            return as_api_error(error).response()

    return [Route(path, answer, methods=[method], name=f"{method} {path}") for path in paths]
