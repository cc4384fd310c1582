"""The gate: bounds the answers in hand by tokens, shares the engines fairly, and sheds load in stages.

Refused for what the caller did (quota, too many answers under way): 429. Refused because the server is full: 503.
Both come with Retry-After and a code.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from causerie.core import CauserieError
from causerie.serve.errors import RETRY_SECONDS, ApiError
from causerie.serve.fair import FairQueue
from causerie.serve.quota import NOTHING, Holder, Quotas

SHORTEN: Final = 0.8
"""Share of the tokens or the memory from which on answers of the free tier are shortened."""
SHED_TOKENS: Final = 256
"""Tokens that a shortened answer may have."""
FAIR: Final = 0.5
"""Share of the tokens from which on nobody may hold more than an equal part."""
REFUSE: Final = 0.9
"""Share of the memory from which on requests are refused; at 1 connections are."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Used(Protocol):
    """What tells how many tokens a request used."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens read."""
        ...

    @property
    def completion_tokens(self) -> int:
        """Tokens drawn."""
        ...


@dataclass(frozen=True)
class Asking:
    """Who asks for answers, as far as the gate is concerned.

    Attributes:
        key: id of the API key; None in single-user mode and for the server's own work, where only the totals count.
        tenant: who shares fairly with whom: the project.
        holders: whose quotas the request is counted on.
        seconds: how long the caller waits at most; None: as long as the gate lets it.
        free: whether it is of the free tier.
    """

    key: str | None = None
    tenant: str = ""
    holders: tuple[Holder, ...] = ()
    seconds: float | None = None
    free: bool = False


@dataclass
class Gate:
    """Counts the answers in hand and refuses more than the server takes; all is given back by leaving a block.

    Args:
        max_answers: answers in hand in all, waiting ones included; beyond it requests get 503.
        max_tokens: tokens (prompts, and answers at their longest) in hand in all; beyond it 503.
        max_per_key: answers in hand for one API key; beyond it 429.
        max_running: answers that one engine works on at a time; further ones wait for their turn.
        queue_seconds: how long a request waits for its turn at most; then 503.
        max_memory: bytes by which the server process may grow before it takes no more; what it held when it
            began to serve, as after a training in the same process, is not held against it.
    """

    max_answers: int = 256
    max_tokens: int = 1_000_000
    max_per_key: int = 128
    max_running: int = 64
    queue_seconds: float = 60.0
    max_memory: int = 2 * 2**30
    answers: int = 0
    tokens: int = 0
    memory: int = 0
    resident: int = 0
    at_first: int | None = None
    by_key: Counter[str] = field(default_factory=Counter)
    by_tenant: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    quotas: Quotas = field(default_factory=Quotas)
    _lanes: dict[str, FairQueue] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Requests whose turn has not come."""
        return sum(lane.waiting for lane in self._lanes.values())

    @property
    def stage(self) -> int:
        """How short of room the server is: 0 not, 1 answers of the free tier are shortened, 2 requests are refused,
        3 connections are."""
        memory = self.memory / self.max_memory
        if memory >= 1:
            return 3
        if memory >= REFUSE:
            return 2
        return 1 if max(self.tokens / self.max_tokens, memory) >= SHORTEN else 0

    def give_up(self) -> None:
        """Refuse the requests whose turn has not come: the server ends."""
        for lane in self._lanes.values():
            lane.give_up()

    def measure(self) -> None:
        """Take note of the process's memory: `resident`, and `memory`, what came since the first look."""
        self.resident = resident_bytes()
        if self.at_first is None:
            self.at_first = self.resident
        self.memory = max(0, self.resident - self.at_first)

    @asynccontextmanager
    async def admit(
        self, asking: Asking, answers: int, tokens: int, lane: str = "", used: Used | None = None
    ) -> AsyncIterator[None]:
        """Hold what answers need for the block: room, quota, and a turn at the engine.

        Args:
            asking: who asks.
            answers: answers to draw.
            tokens: tokens they may need in all. One request alone is never refused for its tokens.
            lane: the engine that draws them.
            used: tells at the end how many tokens were used; None: all of them.

        Raises:
            CauserieError: CAU-6006 (503) when the server is full or the turn did not come in time.
            ApiError: 429 when the caller's quota is used up or too many of its answers are in hand.
        """
        with self.hold(asking, answers, tokens):
            reservation = NOTHING
            if asking.holders:
                try:
                    reservation = self.quotas.reserve(asking.holders, tokens)
                except ApiError:
                    self.refused["quota"] += 1
                    raise
            spent, entered = 0, False
            try:
                queue = self._lane(lane)
                seconds = self.queue_seconds if asking.seconds is None else min(asking.seconds, self.queue_seconds)
                try:
                    async with queue.turn(asking.tenant, answers, tokens, seconds):
                        entered = True
                        yield
                except TimeoutError:
                    if entered:
                        raise
                    self.refused["deadline"] += 1
                    raise self._full(f"no engine was free within {seconds:g} seconds") from None
                finally:
                    if entered:
                        spent = tokens if used is None else used.prompt_tokens + used.completion_tokens
            finally:
                reservation.settle(spent, reached=entered)

    @contextmanager
    def hold(self, asking: Asking, answers: int, tokens: int) -> Iterator[None]:
        """Hold room for the block, or refuse."""
        key = asking.key
        if key is not None and self.by_key[key] + answers > self.max_per_key:
            self.refused["concurrency"] += 1
            raise ApiError(
                429,
                f"this key has {self.by_key[key]} answers under way; at most {self.max_per_key} are allowed",
                type="requests",
                code="rate_limit_exceeded",
                retry_after=RETRY_SECONDS,
            )
        if self.stage >= 2:
            self.refused["memory"] += 1
            raise self._full("the server is short of memory")
        if self.answers + answers > self.max_answers or (self.answers and self.tokens + tokens > self.max_tokens):
            self.refused["overload"] += 1
            raise self._full(f"{self.answers} answers with up to {self.tokens} tokens are under way")
        if self._unfair(asking.tenant, tokens):
            self.refused["fair_share"] += 1
            raise self._full("this project holds its share of a busy server")
        self._count(asking, answers, tokens)
        try:
            yield
        finally:
            self._count(asking, -answers, -tokens)

    def _unfair(self, tenant: str, tokens: int) -> bool:
        """Whether a tenant would hold more than an equal part of a server that is half full with others' work too."""
        if self.tokens + tokens <= FAIR * self.max_tokens:
            return False
        held = self.by_tenant[tenant]
        others = len(self.by_tenant) - (held > 0)
        return bool(held and others) and held + tokens > self.max_tokens / (others + 1)

    def _lane(self, name: str) -> FairQueue:
        lane = self._lanes.get(name)
        if lane is None:
            for idle in [each for each, queue in self._lanes.items() if queue.free == queue.slots]:
                del self._lanes[idle]
            lane = self._lanes[name] = FairQueue(self.max_running)
        return lane

    def _full(self, cause: str) -> CauserieError:
        return CauserieError("CAU-6006", cause, where="server", fix=f"try again in {RETRY_SECONDS} seconds")

    def _count(self, asking: Asking, answers: int, tokens: int) -> None:
        self.answers += answers
        self.tokens += tokens
        for counts, name, amount in ((self.by_key, asking.key, answers), (self.by_tenant, asking.tenant, tokens)):
            if name is not None:
                counts[name] += amount
                if not counts[name]:
                    del counts[name]


def resident_bytes() -> int:
    """Bytes of this process's resident memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
