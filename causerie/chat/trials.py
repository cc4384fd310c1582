"""Canaries as the server sees them: which conversations the candidate answers, and its engine beside the incumbent's.

The registry and the store decide (`causerie.loop.review_canary`); this room starts and stops engines accordingly. Only
conversations on the page take part: answers over the API carry no votes, so a trial could learn nothing from them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from causerie.chat.errors import not_found
from causerie.chat.turns import Draft, Turn
from causerie.core import CauserieError
from causerie.hub import get_version
from causerie.loop import Canary, list_canaries, review_canary, stop_canary
from causerie.serve import EnginePool
from causerie.store import Store

log = logging.getLogger("causerie.chat")


class Trials:
    """The canaries that run.

    Args:
        store: where votes and canaries are.
        workspace: where candidates' folders are.
        pool: the served models; a candidate is loaded as `name@N` beside `name`.
    """

    def __init__(self, store: Store, workspace: Path, pool: EnginePool) -> None:
        self._store = store
        self._workspace = workspace
        self._pool = pool
        self._running: dict[str, Canary] = {}
        self._ending: frozenset[str] = frozenset()
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def hidden(self) -> frozenset[str]:
        """Names that are served for a trial only and are not offered for choosing."""
        return frozenset(canary.candidate for canary in self._running.values()) | self._ending

    def route(self, conversation: str, models: Sequence[str]) -> list[str]:
        """The names to draw drafts from, in the order of the names asked for.

        In a conversation of the candidate's share one draft comes from the candidate; two drafts come from
        incumbent and candidate, so that a choice between them is a vote on the trial.
        """
        canary = self._running.get(models[0])
        if canary is None or set(models) != {canary.name} or not canary.takes(conversation):
            return list(models)
        return [canary.candidate] if len(models) == 1 else [canary.name, canary.candidate]

    def source(self, turn: Turn, draft: Draft) -> str:
        """The name that one of a turn's drafts is drawn from."""
        names = self.route(turn.conversation, [one.model for one in turn.drafts])
        return next(name for name, one in zip(names, turn.drafts, strict=True) if one is draft)

    def nudge(self) -> None:
        """Look in the background, unless a look is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._quietly(), name="canaries")

    async def _quietly(self) -> None:
        try:
            await self.look()
        except Exception:  # the incumbent goes on answering
            log.exception("the canaries could not be looked at")

    async def close(self) -> None:
        """Wait for the look under way (the server is ending)."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def end(self, candidate: str, reason: str) -> None:
        """End the running trial of a candidate by hand.

        Raises:
            CauserieError: CAU-6102 when it has none.
        """
        running = [one for one in await run_in_threadpool(list_canaries, self._store) if one.status == "running"]
        canary = next((one for one in running if one.candidate == candidate), None)
        if canary is None:
            raise not_found("trial", candidate)
        await run_in_threadpool(stop_canary, self._store, canary, reason)
        await self.look()

    async def look(self) -> None:
        """Act on the votes so far, and have engines and registry agree."""
        async with self._looking:
            running = {canary.name: canary for canary in await run_in_threadpool(self._review)}
            for name, canary in list(self._running.items()):
                if name not in running or running[name].id != canary.id:
                    await self._end(canary)
            for canary in running.values():
                await self._begin(canary)

    def _review(self) -> list[Canary]:
        found = [canary for canary in list_canaries(self._store) if canary.status == "running"]
        reviewed = [review_canary(self._store, canary) for canary in found]
        return [canary for canary in reviewed if canary.status == "running"]

    async def _begin(self, canary: Canary) -> None:
        served = dict(self._pool.models())
        if canary.name not in served:
            return
        if canary.candidate not in served:
            version = await run_in_threadpool(get_version, self._store, canary.candidate)
            try:
                await self._pool.load(canary.candidate, version.path(self._workspace), version.number)
            except CauserieError as error:
                log.error("%s cannot be tried: %s", canary.candidate, error.cause)
                await run_in_threadpool(stop_canary, self._store, canary, f"its engine does not start: {error.cause}")
                return
        self._running[canary.name] = canary

    async def _end(self, canary: Canary) -> None:
        """The name answers with its promoted version everywhere; the candidate's own engine is let go."""
        self._running.pop(canary.name, None)
        self._ending |= {canary.candidate}
        version = await run_in_threadpool(get_version, self._store, canary.name)
        served = dict(self._pool.models())
        if canary.name in served and served[canary.name].version.version != version.number:
            await self._pool.swap(canary.name, version.path(self._workspace), version.number)
        with contextlib.suppress(CauserieError):
            await self._pool.unload(canary.candidate)
        self._ending -= {canary.candidate}
