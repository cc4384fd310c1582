"""Turns: a question and the one or two answers being given to it, on the server's time.

A turn goes on when the browser goes away; its answers are recorded and saved before "done" is sent. The page follows
a turn's event log and may come back to it; only an explicit stop ends it early, in the engine too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from causerie.chat.conversations import Book
from causerie.chat.errors import invalid, not_found
from causerie.chat.passages import ChatMessages, Prompt, Room, Said, prompt_of
from causerie.chat.shapes import ChatRequest, SamplingParams
from causerie.chat.sse import EventLog
from causerie.core import CauserieError
from causerie.feedback import get_exposure
from causerie.serve import ChatDelta, ServedVersion
from causerie.store import new_id

TURNS_KEPT: Final = 64
"""Finished turns that can still be replayed."""

log = logging.getLogger("causerie.chat")


@dataclass
class Draft:
    """One answer under way; one that goes on with a cut answer begins with its text and tokens (`begun` of them)."""

    message_id: str
    position: int
    model: str
    params: SamplingParams
    seed: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    version: ServedVersion | None = None
    finish: str | None = None
    error: CauserieError | None = None
    begun: int = 0


@dataclass
class Turn:
    """A question and its answers under way."""

    id: str
    conversation: str
    question: str
    drafts: list[Draft]
    learn: bool
    user: str
    passages: list[dict[str, Any]] | None = None
    left_out: int = 0
    """What the prompt holds of the files, where they are not whole."""
    events: EventLog = field(default_factory=EventLog)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    whole: asyncio.Task[None] | None = None


Answering = Callable[[Turn, Draft, ChatMessages], AsyncGenerator[ChatDelta, None]]
"""Draws an answer to messages; closing the generator stops the engine's request."""

Recording = Callable[[Turn, ChatMessages, Sequence[Draft]], Sequence[str]]
"""Records what was shown: `(turn, prompt, drafts)` → the exposures' ids, in the drafts' order."""

Measuring = Callable[[Turn], Room]
"""How long a turn's prompt may be."""


class Turns:
    """All turns of this server; one turn at a time per conversation.

    Args:
        answering: draws an answer, see `Answering`.
        recording: stores what was shown, see `Recording`; runs in a thread.
        measuring: see `Measuring`.
    """

    def __init__(self, answering: Answering, recording: Recording, measuring: Measuring) -> None:
        self._answering = answering
        self._recording = recording
        self._measuring = measuring
        self._turns: OrderedDict[str, Turn] = OrderedDict()

    async def start(self, book: Book, request: ChatRequest) -> Turn:
        """Save the question and begin to answer it.

        Raises:
            CauserieError: CAU-6102 for an unknown conversation or parent, CAU-6105 when it is being answered already.
        """
        if self.live_in(request.conversation) is not None:
            raise CauserieError(
                "CAU-6105", "this conversation is being answered", where="conversation", fix="wait for it, or stop it"
            )
        turn = Turn(new_id("turn"), request.conversation, "", _new_drafts(request), request.learn, book.user)
        self._turns[turn.id] = turn
        try:
            room = self._measuring(turn)
            prompt = await run_in_threadpool(_ask, book, request, turn, room)
        except BaseException:
            del self._turns[turn.id]
            raise
        drafts = [{"message": draft.message_id, "position": draft.position} for draft in turn.drafts]
        turn.events.emit("start", turn=turn.id, question=turn.question, drafts=drafts, left_out=turn.left_out)
        turn.tasks = [asyncio.create_task(self._draw(turn, draft, prompt)) for draft in turn.drafts]
        turn.whole = asyncio.create_task(self._answer(book, turn, prompt), name=turn.id)
        self._forget_old()
        return turn

    def get(self, turn_id: str) -> Turn:
        """A turn that is under way or ended a short while ago.

        Raises:
            CauserieError: CAU-6102.
        """
        turn = self._turns.get(turn_id)
        if turn is None:
            raise not_found("turn", turn_id)
        return turn

    def live_in(self, conversation_id: str) -> Turn | None:
        """The turn under way in a conversation."""
        turns = (turn for turn in self._turns.values() if turn.conversation == conversation_id)
        return next((turn for turn in turns if not turn.events.closed), None)

    async def stop(self, turn: Turn) -> None:
        """Stop the engine's requests; what was said so far is kept. Returns when it is saved."""
        for task in turn.tasks:
            task.cancel()
        if turn.whole is not None:
            await asyncio.wait([turn.whole])

    async def close(self) -> None:
        """Stop everything, saving what was said so far (the server is ending)."""
        for turn in list(self._turns.values()):
            if not turn.events.closed:
                await self.stop(turn)

    async def _answer(self, book: Book, turn: Turn, prompt: ChatMessages) -> None:
        try:
            await asyncio.gather(*turn.tasks, return_exceptions=True)
            answered = [draft for draft in turn.drafts if draft.text or draft.finish not in (None, "cancelled")]
            await run_in_threadpool(self._save, book, turn, prompt, answered)
            shown = [{"message": draft.message_id, "finish": draft.finish} for draft in answered]
            failed = [draft.error for draft in turn.drafts if draft.error is not None]
            if failed:
                turn.events.emit("error", error=failed[0].as_dict())
            turn.events.emit("done", drafts=shown)
        except Exception as error:  # whatever happens, readers must not wait for ever
            log.exception("the answer could not be saved")
            cause = error if isinstance(error, CauserieError) else _failure(error)
            turn.events.emit("error", error=cause.as_dict())
        finally:
            turn.events.close()

    async def _draw(self, turn: Turn, draft: Draft, prompt: ChatMessages) -> None:
        if draft.text:
            turn.events.emit("delta", message=draft.message_id, text=draft.text)
        stream = self._answering(turn, draft, prompt)
        try:
            async for delta in stream:
                draft.version = delta.version
                draft.token_ids.extend(delta.ids)
                draft.log_probs.extend(delta.logprobs)
                draft.finish = delta.finish or draft.finish
                text = delta.text.replace("\0", "\ufffd")  # a database text cannot hold NUL; the ids still tell
                if text:
                    draft.text += text
                    turn.events.emit("delta", message=draft.message_id, text=text)
        except asyncio.CancelledError:
            draft.finish = "cancelled"
        except CauserieError as error:
            draft.error = error
        except Exception as error:
            log.exception("the engine failed")
            draft.error = _failure(error)
        finally:
            await stream.aclose()

    def _save(self, book: Book, turn: Turn, prompt: ChatMessages, drafts: Sequence[Draft]) -> None:
        """Record what was shown, then the messages that refer to it (both on the disk when this returns)."""
        if not drafts:
            return
        exposures = self._recording(turn, prompt, drafts)
        for draft, exposure in sorted(zip(drafts, exposures, strict=True), key=lambda pair: pair[0].position):
            values: dict[str, Any] = {"id": draft.message_id, "exposure_id": exposure, "model": draft.model}
            values["attachments"] = turn.passages
            book.add(turn.conversation, "assistant", draft.text, parent=turn.question, **values)

    def _forget_old(self) -> None:
        ended = [turn.id for turn in self._turns.values() if turn.events.closed]
        for turn_id in ended[: max(0, len(self._turns) - TURNS_KEPT)]:
            del self._turns[turn_id]


def _ask(book: Book, request: ChatRequest, turn: Turn, room: Room) -> ChatMessages:
    """Save a new question, or check the old one; fills in `turn`, and returns the prompt."""
    given = None
    if request.continues is not None:
        turn.question, given = _begin_again(book, request.continues, turn.drafts[0])
    elif request.content is not None:
        turn.question = _save_question(book, request)
    else:
        turn.question = str(request.parent)
    way = book.path(request.conversation, turn.question)
    if way[-1].role != "user":
        raise not_found("question", turn.question)
    told = [Said("system", request.system)] if request.system.strip() else []
    prompt: Prompt = prompt_of([*told, *way], room, given)
    turn.passages, turn.left_out = prompt.passages, prompt.left_out
    return prompt.messages


def _save_question(book: Book, request: ChatRequest) -> str:
    book.path(request.conversation, request.parent)  # the parent is of this conversation
    files = [file.model_dump() for file in request.attachments]
    if request.files_of is not None:
        files = [*(book.message(request.files_of)["attachments"] or ()), *files]
    said = (request.conversation, "user", request.content or "")
    return book.add(*said, parent=request.parent, attachments=files or None)


def _begin_again(book: Book, message_id: str, draft: Draft) -> tuple[str, list[dict[str, Any]] | None]:
    """Let a draft begin with what a cut answer says; returns the question's id, and the passages it was given."""
    message = book.message(message_id)
    shown = get_exposure(book.store, message["exposure_id"]) if message["exposure_id"] else None
    if shown is None or shown.finish not in ("length", "cancelled") or message["parent"] is None:
        raise invalid("only an answer that was cut can go on", "continues")
    draft.text, draft.begun = message["content"], len(shown.token_ids)
    draft.token_ids, draft.log_probs = list(shown.token_ids), list(shown.log_probs)
    return str(message["parent"]), message["attachments"]


def _new_drafts(request: ChatRequest) -> list[Draft]:
    """Drafts with fresh seeds, in an order on the screen drawn by chance."""
    models = [request.model] if request.drafts == 1 else [request.model, request.other or request.model]
    chance = random.SystemRandom()
    positions = chance.sample(range(len(models)), len(models))
    return [
        Draft(new_id("msg"), position, model, request.params, _seed(request.params, position, chance))
        for model, position in zip(models, positions, strict=True)
    ]


def _seed(params: SamplingParams, position: int, chance: random.Random) -> int:
    """The seed asked for (two drafts must differ all the same), else a fresh one."""
    return chance.randrange(2**31) if params.seed is None else (params.seed + position) % 2**31


def _failure(error: Exception) -> CauserieError:
    return CauserieError(
        "CAU-6107", f"the answer failed: {error or type(error).__name__}", where="engine", fix="ask again"
    )
