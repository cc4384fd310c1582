"""The page and its API as one ASGI application, beside the OpenAI-shaped routes of the serve room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from causerie.chat import admin, endpoints, signin
from causerie.chat.errors import status_of
from causerie.chat.guard import LOOPBACK, SameOrigin
from causerie.chat.improve import COMMAND, Improver
from causerie.chat.passages import ChatMessages, Room
from causerie.chat.search import prepare_search
from causerie.chat.signin import Door, WhoIsIt
from causerie.chat.trials import Trials
from causerie.chat.turns import Draft, Turn, Turns
from causerie.chat.versions import let_answer
from causerie.chat.visiting import visitor
from causerie.chat.votes import record_answers
from causerie.core import CauserieError
from causerie.serve import AnswerParams, ChatDelta, EnginePool, Meter, chat_stream, create_app
from causerie.store import Store

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]

log = logging.getLogger("causerie.chat")


@dataclass
class ChatContext:
    """What the endpoints work with; `request.app.state.chat`."""

    workspace: Path
    store: Store
    pool: EnginePool
    turns: Turns
    improver: Improver
    door: Door
    trials: Trials
    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """How many files are read at once."""


def page_folder() -> Path:
    """The built page inside the package.

    Raises:
        CauserieError: CAU-6109 when it is not there.
    """
    folder = Path(str(files("causerie.chat"))) / "page"
    if not (folder / "index.html").is_file():
        raise CauserieError(
            "CAU-6109",
            "the built page is missing",
            where=str(folder),
            fix="run: npm --prefix page ci && npm --prefix page run build",
        )
    return folder


def create_chat_app(
    workspace: Path,
    store: Store,
    pool: EnginePool,
    *,
    hosts: Sequence[str] = (),
    keys_required: bool = False,
    improve_command: Sequence[str] = COMMAND,
    lifespans: Sequence[Lifespan] = (),
    door: Door | None = None,
) -> Starlette:
    """The page at `/`, its API at `/api/`, and the serve room's OpenAI-shaped routes beside them.

    Args:
        workspace: where runs and artifacts are.
        store: the open store; the caller closes it.
        pool: the served models; closed when the application ends.
        hosts: further host names that the page is reached by, besides the loopback ones.
        keys_required: for the OpenAI-shaped routes; always so when people sign in.
        improve_command: how the program is called for `improve`.
        lifespans: what else to do around the server's life, such as loading the models.
        door: how people sign in; None is single-user mode.
    """
    context = make_context(workspace, store, pool, improve_command, door or Door(None))
    several = context.door.accounts is not None
    names = () if several else (*LOOPBACK, *hosts)
    app = create_app(
        pool,
        store=store,
        keys_required=keys_required or several,
        hosts=hosts,
        routes=_routes(context, names),
        lifespans=[*lifespans, _lifespan(context)],
        workspace=workspace,
        visitor=visitor(context.door, names) if several or keys_required else None,
    )
    app.state.chat = context
    return app


def make_context(
    workspace: Path, store: Store, pool: EnginePool, improve_command: Sequence[str], door: Door
) -> ChatContext:
    """Everything the endpoints need, wired together."""

    trials = Trials(store, workspace, pool)

    async def on_verdict(version: str | None) -> None:
        if version is not None:
            await let_answer(store, workspace, pool, version)
        await trials.look()

    def answer(turn: Turn, draft: Draft, prompt: ChatMessages) -> AsyncGenerator[ChatDelta, None]:
        drawn = AnswerParams(**{**draft.params.model_dump(), "seed": draft.seed})
        meter = Meter(store, "/api/chat", None if door.accounts is None else turn.user)
        return chat_stream(pool, trials.source(turn, draft), prompt, drawn, meter, draft.token_ids[: draft.begun])

    def record(turn: Turn, prompt: ChatMessages, drafts: Sequence[Draft]) -> list[str]:
        return record_answers(store, turn, prompt, drafts)

    def measure(turn: Turn) -> Room:
        return room_for(pool, turn.drafts)

    improver = Improver(workspace, on_verdict, improve_command)
    return ChatContext(workspace, store, pool, Turns(answer, record, measure), improver, door, trials)


def room_for(pool: EnginePool, drafts: Sequence[Draft]) -> Room:
    """What a prompt may hold, by the shortest of the models that answer it; room for the answer is kept free."""
    served = min((pool.get(draft.model) for draft in drafts), key=lambda one: one.max_seq_len)
    length = served.max_seq_len
    longest = min(max(draft.params.max_tokens for draft in drafts), length // 4)
    return Room(lambda text: len(served.tokenizer.encode(text)), length - longest)


def _routes(context: ChatContext, hosts: Iterable[str]) -> list[BaseRoute]:
    guard = [Middleware(SameOrigin, hosts=tuple(hosts))]
    folder = page_folder()
    handlers: Any = {CauserieError: _known_error, HTTPException: _http_error, Exception: _unknown_error}
    table = [*endpoints.routes(), *signin.routes(), *admin.routes()]
    if context.door.provider is not None:
        table += context.door.provider.routes()
    who = Middleware(WhoIsIt, door=context.door)
    page_api = Starlette(routes=table, exception_handlers=handlers, middleware=[*guard, who])
    page_api.state.chat = context

    def file(name: str) -> Route:
        async def send(_request: Request) -> Response:
            return FileResponse(folder / name, headers={"cache-control": "no-cache"})

        return Route("/" if name == "index.html" else f"/{name}", send, middleware=guard)

    return [
        file("index.html"),
        file("icon.svg"),
        Mount("/assets", StaticFiles(directory=folder / "assets"), middleware=guard),
        Mount("/api", page_api),
    ]


def _lifespan(context: ChatContext) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(prepare_search, context.store, fresh=True)
        await context.trials.look()
        yield
        await context.trials.close()
        await context.turns.close()
        await context.improver.close()

    return lifespan


def _error_response(error: CauserieError, status: int) -> JSONResponse:
    headers = {"cache-control": "no-store", **({"retry-after": "2"} if status == 503 else {})}
    return JSONResponse({"error": error.as_dict()}, status_code=status, headers=headers)


async def _known_error(_request: Request, error: CauserieError) -> Response:
    return _error_response(error, status_of(error))


async def _http_error(request: Request, error: HTTPException) -> Response:
    cause = CauserieError("CAU-6102", error.detail, where=request.url.path, fix="reload the page")
    return _error_response(cause, error.status_code)


async def _unknown_error(request: Request, error: Exception) -> Response:
    log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    cause = CauserieError("CAU-6110", "the server failed; its log says why", where=request.url.path, fix="try again")
    return _error_response(cause, status_of(cause))
