"""The endpoints under `/api/`: thin, each reads its request, calls one function and answers with JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from causerie.chat import exports, reports, runs, series, shapes, versions, votes
from causerie.chat.conversations import Book
from causerie.chat.errors import invalid, not_found
from causerie.chat.reading import FILE_BYTES, kind_of, read_file
from causerie.chat.search import search
from causerie.chat.signin import need_admin, person_of
from causerie.chat.turns import Turn
from causerie.core import CauserieError
from causerie.feedback import get_exposure, withdraw_signal

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
        ("PATCH", "/conversations/{conversation}", change_conversation),
        ("DELETE", "/conversations/{conversation}", delete_conversation),
        ("POST", "/conversations/{conversation}/restore", restore_conversation),
        ("GET", "/conversations/{conversation}/export", export_conversation),
        ("GET", "/search", search_messages),
        ("POST", "/files", read_attached),
        ("POST", "/chat", start_turn),
        ("GET", "/chat/{turn}", follow_turn),
        ("DELETE", "/chat/{turn}", stop_turn),
        ("POST", "/feedback", send_feedback),
        ("DELETE", "/feedback", withdraw_everything),
        ("DELETE", "/feedback/{signal}", withdraw_feedback),
        ("GET", "/teach", get_teach),
        ("GET", "/improve", get_improve),
        ("POST", "/improve", start_improve),
        ("DELETE", "/improve", stop_improve),
        ("GET", "/versions", get_versions),
        ("POST", "/rollback", roll_back),
        ("DELETE", "/trials/{version}", end_trial),
        ("GET", "/runs", list_runs),
        ("GET", "/runs/{run}", get_run),
        ("GET", "/runs/{run}/events", get_events),
        ("GET", "/reports/{corpus}", get_report),
    ]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]


def _context(request: Request) -> ChatContext:
    context: ChatContext = request.app.state.chat
    return context


def _book(request: Request) -> Book:
    return Book(_context(request).store, person_of(request).id)


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
    models = await run_in_threadpool(versions.served_models, context.store, context.pool, context.trials.hidden)
    person = person_of(request)
    user = {"id": person.id, "name": person.name, "role": person.role}
    return _json({"user": user, "language": _language(request), "models": models})


def _language(request: Request) -> str:
    wanted = (part.strip()[:2].lower() for part in request.headers.get("accept-language", "").split(","))
    return next((code for code in wanted if code in LANGUAGES), LANGUAGES[0])


async def list_conversations(request: Request) -> Response:
    """All conversations, last used first."""
    return _json({"conversations": await run_in_threadpool(_book(request).all)})


async def create_conversation(request: Request) -> Response:
    """A new conversation."""
    body = await shapes.read_shape(request, shapes.NewConversation)
    return _json(await run_in_threadpool(_book(request).create, body.title, body.model), 201)


async def read_conversation(request: Request) -> Response:
    """One conversation, its message tree, and the turn under way in it."""
    context, name = _context(request), request.path_params["conversation"]
    live = context.turns.live_in(name)
    conversation = await run_in_threadpool(_book(request).conversation, name)
    messages = await run_in_threadpool(_book(request).tree, name)
    return _json({"conversation": conversation, "messages": messages, "turn": _turn(live) if live else None})


def _turn(turn: Turn) -> dict[str, Any]:
    drafts = [{"message": draft.message_id, "position": draft.position} for draft in turn.drafts]
    return {"id": turn.id, "question": turn.question, "drafts": drafts}


async def change_conversation(request: Request) -> Response:
    """Another title, folder, pin or settings."""
    body = await shapes.read_shape(request, shapes.ChangedConversation)
    values = body.model_dump(exclude_unset=True)
    if values.get("folder") == "":
        values["folder"] = None
    return _json(await run_in_threadpool(lambda: _book(request).change(request.path_params["conversation"], **values)))


async def delete_conversation(request: Request) -> Response:
    """Delete a conversation; an answer under way in it is stopped."""
    context, name = _context(request), request.path_params["conversation"]
    await run_in_threadpool(_book(request).conversation, name)
    live = context.turns.live_in(name)
    if live is not None:
        await context.turns.stop(live)
    await run_in_threadpool(_book(request).delete, name)
    return _json({"deleted": name})


async def restore_conversation(request: Request) -> Response:
    """Bring a conversation back that was just deleted."""
    return _json(await run_in_threadpool(_book(request).restore, request.path_params["conversation"]))


async def export_conversation(request: Request) -> Response:
    """A conversation as a file: `?format=md|json&leaf=MESSAGE&language=en|fr`."""
    query, name = request.query_params, request.path_params["conversation"]
    form, leaf = query.get("format", "md"), query.get("leaf")
    text = await run_in_threadpool(exports.export, _book(request), name, form, leaf, query.get("language", "en"))
    headers = {**NO_STORE, "content-disposition": f'attachment; filename="causerie-{name[-6:]}.{form}"'}
    return Response(text, media_type=exports.FORMATS[form], headers=headers)


async def search_messages(request: Request) -> Response:
    """Conversations that hold words: `?q=`."""
    words = request.query_params.get("q", "")[:200].replace("\0", "")
    found = await run_in_threadpool(search, _context(request).store, person_of(request).id, words)
    return _json({"found": found})


async def read_attached(request: Request) -> Response:
    """The text of a file, which is not kept: `?name=`, the file as the body."""
    name = request.query_params.get("name", "")
    if not 0 < len(name) <= 200 or "\0" in name:
        raise invalid("the file's name is missing or too long", "name")
    kind_of(name)
    content = await shapes.read_body(request, FILE_BYTES)
    async with _context(request).reading:
        return _json(await read_file(name, content))


async def start_turn(request: Request) -> Response:
    """Ask; the answer is an event stream: start, delta (many), error, done."""
    context = _context(request)
    body = await shapes.read_shape(request, shapes.ChatRequest)
    for name in {body.model, body.other or body.model}:
        context.pool.get(name)
    book, accounts = _book(request), context.door.accounts
    if accounts is not None:
        await run_in_threadpool(accounts.check_quota, person_of(request))
    if body.continues is not None:
        await run_in_threadpool(_same_weights, context, book, body)
    turn = await context.turns.start(book, body)
    if body.content is not None:
        await run_in_threadpool(votes.record_kept, book, body.parent)
    context.trials.nudge()
    return StreamingResponse(turn.events.follow(), media_type="text/event-stream", headers=EVENT_STREAM)


def _same_weights(context: ChatContext, book: Book, body: shapes.ChatRequest) -> None:
    """Refuse to go on with an answer that other weights began."""
    begun = book.message(str(body.continues))["exposure_id"]
    shown = get_exposure(context.store, begun) if begun else None
    if shown is not None and shown.version_key != context.pool.get(body.model).version.key:
        raise CauserieError(
            "CAU-6105", "another version answers now", where="continues", fix="ask the question again instead"
        )


def _turn_of(request: Request) -> Turn:
    """The turn that is named, if it is this person's.

    Raises:
        CauserieError: CAU-6102.
    """
    turn = _context(request).turns.get(request.path_params["turn"])
    if turn.user != person_of(request).id:
        raise not_found("turn", turn.id)
    return turn


async def follow_turn(request: Request) -> Response:
    """The event stream of a turn again, from event `after` on."""
    turn = _turn_of(request)
    frames = turn.events.follow(_whole_number(request, "after"))
    return StreamingResponse(frames, media_type="text/event-stream", headers=EVENT_STREAM)


async def stop_turn(request: Request) -> Response:
    """Stop a turn, in the engine too; answers when what was said is saved."""
    turn = _turn_of(request)
    await _context(request).turns.stop(turn)
    return _json({"stopped": turn.id})


async def send_feedback(request: Request) -> Response:
    """Record a thumb, a choice or an edit."""
    body = await shapes.read_shape(request, shapes.FeedbackRequest)
    recorded = await run_in_threadpool(votes.record_judgement, _book(request), body.signal)
    _context(request).trials.nudge()
    return _json(recorded, 201)


async def withdraw_feedback(request: Request) -> Response:
    """Take back what was said."""
    context, name = _context(request), request.path_params["signal"]
    standing = await run_in_threadpool(withdraw_signal, context.store, name, person_of(request).id)
    return _json({"withdrawn": name, "was_standing": standing})


async def withdraw_everything(request: Request) -> Response:
    """Take back all that this person said."""
    count = await run_in_threadpool(votes.withdraw_all, _context(request).store, person_of(request).id)
    return _json({"withdrawn": count})


async def get_teach(request: Request) -> Response:
    """What was collected and how much more a round needs."""
    context = _context(request)
    return _json(await run_in_threadpool(votes.teach_stats, context.store, context.workspace, _model(request)))


async def get_improve(request: Request) -> Response:
    """What the improvement under way is doing, or the last one (of `model`, where given) found."""
    model = _model(request) if request.query_params.get("model") else ""
    return _json(await run_in_threadpool(_context(request).improver.progress, model))


async def start_improve(request: Request) -> Response:
    """Start one improvement."""
    need_admin(request)
    context = _context(request)
    body = await shapes.read_shape(request, shapes.ImproveRequest)
    await context.improver.start(body.model)
    return _json(await run_in_threadpool(context.improver.progress), 202)


async def stop_improve(request: Request) -> Response:
    """Ask the improvement to save its state and end."""
    need_admin(request)
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
    need_admin(request)
    context = _context(request)
    body = await shapes.read_shape(request, shapes.RollbackRequest)
    if context.improver.running:
        raise CauserieError(
            "CAU-6105", "an improvement is under way", where="rollback", fix="wait for its verdict, or stop it"
        )
    answers = await versions.let_answer(context.store, context.workspace, context.pool, body.version)
    context.trials.nudge()  # a trial against the version before is over
    return _json(answers)


async def end_trial(request: Request) -> Response:
    """End a candidate's trial: the version that answered before answers everywhere again."""
    admin = need_admin(request)
    ref = request.path_params["version"]
    await _context(request).trials.end(ref, f"ended on the page by {admin.name}")
    return _json({"ended": ref})


async def list_runs(request: Request) -> Response:
    """The newest runs."""
    return _json({"runs": await run_in_threadpool(runs.list_runs, _context(request).workspace)})


async def get_run(request: Request) -> Response:
    """One run: its series, samples and prediction."""
    workspace, name = _context(request).workspace, request.path_params["run"]
    return _json(await run_in_threadpool(series.run_in_full, workspace, name))


async def get_events(request: Request) -> Response:
    """Events of one run from line `after` on."""
    workspace, name = _context(request).workspace, request.path_params["run"]
    return _json(await run_in_threadpool(runs.run_events, workspace, name, _whole_number(request, "after")))


async def get_report(request: Request) -> Response:
    """The report of a corpus: a page of its own in which nothing may run."""
    path = await run_in_threadpool(reports.report_of, _context(request).workspace, request.path_params["corpus"])
    return FileResponse(path, media_type="text/html", headers={**NO_STORE, "content-security-policy": reports.POLICY})
