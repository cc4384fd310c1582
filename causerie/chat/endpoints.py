"""The endpoints under `/api/`: thin, each reads its request, calls one function and answers with JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from causerie.chat import runs, shapes, versions, votes
from causerie.chat.errors import invalid
from causerie.chat.turns import Turn
from causerie.core import CauserieError
from causerie.feedback import withdraw_signal

if TYPE_CHECKING:
    from causerie.chat.app import ChatContext

LANGUAGES: Final = ("en", "fr")
EVENT_STREAM: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
NO_STORE: Final = {"cache-control": "no-store"}

Result = TypeVar("Result")
Endpoint = Callable[[Request], Awaitable[Response]]


def routes() -> list[Route]:
    """All routes, relative to `/api`."""
    table: list[tuple[str, str, Endpoint]] = [
        ("GET", "/state", get_state),
        ("GET", "/conversations", list_conversations),
        ("POST", "/conversations", create_conversation),
        ("GET", "/conversations/{conversation}", read_conversation),
        ("PATCH", "/conversations/{conversation}", rename_conversation),
        ("DELETE", "/conversations/{conversation}", delete_conversation),
        ("POST", "/chat", start_turn),
        ("GET", "/chat/{turn}", follow_turn),
        ("DELETE", "/chat/{turn}", stop_turn),
        ("POST", "/feedback", send_feedback),
        ("DELETE", "/feedback/{signal}", withdraw_feedback),
        ("GET", "/teach", get_teach),
        ("GET", "/improve", get_improve),
        ("POST", "/improve", start_improve),
        ("DELETE", "/improve", stop_improve),
        ("GET", "/versions", get_versions),
        ("POST", "/rollback", roll_back),
        ("GET", "/runs", list_runs),
        ("GET", "/runs/{run}/events", get_events),
    ]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]


def _context(request: Request) -> ChatContext:
    context: ChatContext = request.app.state.chat
    return context


def _json(value: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(value, status_code=status, headers=NO_STORE)


def _whole_number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise invalid(f"{text[:40]!r} is not a whole number", name)
    return int(text)


def _model(request: Request) -> str:
    name = request.query_params.get("model", "")
    if not 0 < len(name) <= 200 or "\0" in name:
        raise invalid("the model's name is missing or too long", "model")
    return name


async def get_state(request: Request) -> Response:
    """What the page needs first: user, language asked for by the browser, served models."""
    context = _context(request)
    models = await run_in_threadpool(versions.served_models, context.store, context.pool)
    user = {"id": context.book.user, "name": context.book.user}
    return _json({"user": user, "language": _language(request), "models": models})


def _language(request: Request) -> str:
    wanted = (part.strip()[:2].lower() for part in request.headers.get("accept-language", "").split(","))
    return next((code for code in wanted if code in LANGUAGES), LANGUAGES[0])


async def list_conversations(request: Request) -> Response:
    """All conversations, last used first."""
    return _json({"conversations": await run_in_threadpool(_context(request).book.all)})


async def create_conversation(request: Request) -> Response:
    """A new conversation."""
    body = await shapes.read_shape(request, shapes.NewConversation)
    return _json(await run_in_threadpool(_context(request).book.create, body.title, body.model), 201)


async def read_conversation(request: Request) -> Response:
    """One conversation, its message tree, and the turn under way in it."""
    context, name = _context(request), request.path_params["conversation"]
    live = context.turns.live_in(name)
    conversation = await run_in_threadpool(context.book.conversation, name)
    messages = await run_in_threadpool(context.book.tree, name)
    return _json({"conversation": conversation, "messages": messages, "turn": _turn(live) if live else None})


def _turn(turn: Turn) -> dict[str, Any]:
    drafts = [{"message": draft.message_id, "position": draft.position} for draft in turn.drafts]
    return {"id": turn.id, "question": turn.question, "drafts": drafts}


async def rename_conversation(request: Request) -> Response:
    """Another title."""
    body = await shapes.read_shape(request, shapes.ChangedConversation)
    rename = _context(request).book.rename
    return _json(await run_in_threadpool(rename, request.path_params["conversation"], body.title))


async def delete_conversation(request: Request) -> Response:
    """Delete a conversation; an answer under way in it is stopped."""
    context, name = _context(request), request.path_params["conversation"]
    live = context.turns.live_in(name)
    if live is not None:
        await context.turns.stop(live)
    await run_in_threadpool(context.book.delete, name)
    return _json({"deleted": name})


async def start_turn(request: Request) -> Response:
    """Ask; the answer is an event stream: start, delta (many), error, done."""
    context = _context(request)
    body = await shapes.read_shape(request, shapes.ChatRequest)
    for name in {body.model, body.other or body.model}:
        context.pool.get(name)
    turn = await context.turns.start(context.book, body)
    return StreamingResponse(turn.events.follow(), media_type="text/event-stream", headers=EVENT_STREAM)


async def follow_turn(request: Request) -> Response:
    """The event stream of a turn again, from event `after` on."""
    turn = _context(request).turns.get(request.path_params["turn"])
    frames = turn.events.follow(_whole_number(request, "after"))
    return StreamingResponse(frames, media_type="text/event-stream", headers=EVENT_STREAM)


async def stop_turn(request: Request) -> Response:
    """Stop a turn, in the engine too; answers when what was said is saved."""
    context = _context(request)
    turn = context.turns.get(request.path_params["turn"])
    await context.turns.stop(turn)
    return _json({"stopped": turn.id})


async def send_feedback(request: Request) -> Response:
    """Record a thumb, a choice or an edit."""
    body = await shapes.read_shape(request, shapes.FeedbackRequest)
    return _json(await run_in_threadpool(votes.record_judgement, _context(request).book, body.signal), 201)


async def withdraw_feedback(request: Request) -> Response:
    """Take back what was said."""
    context, name = _context(request), request.path_params["signal"]
    standing = await run_in_threadpool(withdraw_signal, context.store, name, context.book.user)
    return _json({"withdrawn": name, "was_standing": standing})


async def get_teach(request: Request) -> Response:
    """What was collected and how much more a round needs."""
    context = _context(request)
    return _json(await run_in_threadpool(votes.teach_stats, context.store, context.workspace, _model(request)))


async def get_improve(request: Request) -> Response:
    """What the improvement is doing or found."""
    return _json(await run_in_threadpool(_context(request).improver.progress))


async def start_improve(request: Request) -> Response:
    """Start one improvement."""
    context = _context(request)
    body = await shapes.read_shape(request, shapes.ImproveRequest)
    await context.improver.start(body.model)
    return _json(await run_in_threadpool(context.improver.progress), 202)


async def stop_improve(request: Request) -> Response:
    """Ask the improvement to save its state and end."""
    improver = _context(request).improver
    await improver.stop()
    return _json(await run_in_threadpool(improver.progress))


async def get_versions(request: Request) -> Response:
    """All versions of a model with what each was made from."""
    context, model = _context(request), _model(request)
    tree = await run_in_threadpool(versions.version_tree, context.store, context.workspace, model.partition("@")[0])
    return _json({"model": model, "versions": tree})


async def roll_back(request: Request) -> Response:
    """Have another version answer."""
    context = _context(request)
    body = await shapes.read_shape(request, shapes.RollbackRequest)
    if context.improver.running:
        raise CauserieError(
            "CAU-6105", "an improvement is under way", where="rollback", fix="wait for its verdict, or stop it"
        )
    return _json(await versions.let_answer(context.store, context.workspace, context.pool, body.version))


async def list_runs(request: Request) -> Response:
    """The newest runs."""
    return _json({"runs": await run_in_threadpool(runs.list_runs, _context(request).workspace)})


async def get_events(request: Request) -> Response:
    """Events of one run from line `after` on."""
    workspace, name = _context(request).workspace, request.path_params["run"]
    return _json(await run_in_threadpool(runs.run_events, workspace, name, _whole_number(request, "after")))
