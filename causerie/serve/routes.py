"""Routes that say what they need: every one names a resource and an action, and is authorised as a route, never by
a path's spelling."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from causerie.core import CauserieError
from causerie.serve.door import Doorkeeper
from causerie.serve.errors import ApiError, as_api_error
from causerie.serve.events import ClientGone, Drain
from causerie.serve.keys import Principal
from causerie.serve.metering import CLIENT_GONE
from causerie.serve.metrics import Tally
from causerie.serve.objects import Objects
from causerie.serve.pool import EnginePool
from causerie.serve.replay import Replays
from causerie.serve.scopes import ACTIONS, RESOURCES, Need
from causerie.serve.work import Workers
from causerie.store import Store

if TYPE_CHECKING:
    from causerie.serve.file_space import FileSpace
    from causerie.serve.fine_tuning.child import Child

log = logging.getLogger("causerie.serve")

PLAIN: Final = ("/v1", "/openai/v1", "/openai")
"""OpenAI's prefix, Azure's without api-version, Azure's with it."""
DEPLOYMENT: Final = "/openai/deployments/{deployment}"
"""Azure's prefix of the few operations that name the model in their path."""


@dataclass
class Office:
    """What the routes work with."""

    pool: EnginePool
    store: Store | None
    door: Doorkeeper
    drain: Drain
    workspace: Path | None = None
    lenient: bool = False
    """Leave out request fields that this server cannot honour, naming them in a header, instead of refusing them."""
    tally: Tally = field(default_factory=Tally)
    replays: Replays = field(default_factory=Replays)
    workers: Workers = field(default_factory=Workers)
    training: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one fine-tuning job that runs."""
    children: dict[str, Child] = field(default_factory=dict)
    """The trainer's process of each job that runs."""
    cancelled_batches: set[str] = field(default_factory=set)
    """Batches that begin no further requests."""

    @property
    def objects(self) -> Objects:
        """The stored objects.

        Raises:
            ApiError: 501 on a server without a database.
        """
        if self._objects is None:
            raise ApiError(501, "this server keeps no objects: it runs without a database", code="no_database")
        return self._objects

    @property
    def files(self) -> FileSpace:
        """Where the content of files is.

        Raises:
            ApiError: 501 on a server without a workspace.
        """
        if self._files is None:
            raise ApiError(501, "this server keeps no files: it runs without a workspace", code="no_workspace")
        return self._files

    def __post_init__(self) -> None:
        from causerie.serve.file_space import FileSpace
        from causerie.serve.vector_stores.storing import Indexes

        self._objects = Objects(self.store) if self.store else None
        self.indexes = Indexes()
        self._files = FileSpace(self.workspace / "files") if self.workspace else None


Endpoint = Callable[[Office, Request, Principal], Awaitable[Response]]
"""Answers a request of a known caller."""


@dataclass(frozen=True)
class ApiRoute:
    """One operation of the API.

    Attributes:
        method: HTTP method.
        path: below the prefix, such as `files/{file_id}`.
        endpoint: what answers.
        resource, action: what the caller must be allowed to do; see `causerie.serve.scopes`.
        deployment: also served under Azure's `openai/deployments/NAME/`.
        body: the request's pydantic model, for documents that describe the API.
    """

    method: str
    path: str
    endpoint: Endpoint
    resource: str
    action: str
    deployment: bool = False
    body: Any = None

    @property
    def need(self) -> Need:
        """What the caller must be allowed to do."""
        return Need(self.resource, self.action)


def starlette_routes(office: Office, table: Sequence[ApiRoute]) -> list[Route]:
    """The routes of a table under the API's prefixes.

    Raises:
        CauserieError: CAU-6007 when an operation does not say what its caller must be allowed to do, or is there twice.
    """
    check_table(table)
    routes = []
    for each in table:
        prefixes = (*PLAIN, DEPLOYMENT) if each.deployment else PLAIN
        answer = guarded(office, each)
        for prefix in prefixes:
            path = f"{prefix}/{each.path}"
            routes.append(Route(path, answer, methods=[each.method], name=f"{each.method} {path}"))
    return routes


def check_table(table: Sequence[ApiRoute]) -> None:
    """Refuse a table with an operation that nobody would guard.

    Raises:
        CauserieError: CAU-6007.
    """
    seen = set()
    for each in table:
        name = f"{each.method} {each.path}"
        if each.resource not in RESOURCES or each.action not in ACTIONS:
            cause = f"{name} asks for the right {each.resource!r}.{each.action!r}, which is none"
            raise CauserieError("CAU-6007", cause, where="routes", fix="name a resource and action of serve.scopes")
        if name in seen:
            raise CauserieError("CAU-6007", f"{name} is there twice", where="routes", fix="leave one")
        seen.add(name)


def guarded(office: Office, route: ApiRoute) -> Callable[[Request], Awaitable[Response]]:
    """The operation behind the door; errors become answers in OpenAI's shape."""

    async def answer(request: Request) -> Response:
        try:
            if office.drain.draining:
                raise ApiError(
                    503, "the server is stopping", type="server_error", code="server_stopping", retry_after=5
                )
            principal = await office.door.identify(request, route.need)
            request.state.ignored = [] if office.lenient else None
            response = await route.endpoint(office, request, principal)
            if request.state.ignored:
                response.headers["x-causerie-ignored"] = ", ".join(request.state.ignored)
            return response
        except ClientGone:
            return Response(status_code=CLIENT_GONE)
        except (ApiError, CauserieError) as error:
            told = as_api_error(error)
            office.tally.failures[told.status] += 1
            return told.response()
        except Exception as error:
            office.tally.failures[500] += 1
            log.exception("%s %s failed", route.method, route.path)
            return as_api_error(error).response()

    return answer
