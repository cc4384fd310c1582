"""Quotas: how many tokens and requests an API key, or a project, may have answered per minute and per day.

Every quota is a bucket that fills evenly on the monotonic clock, so a clock set back locks nobody out. A request takes
what it may need at most and gives back what it did not use; one that is refused, fails or is cancelled costs nothing
that was not drawn.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from causerie.serve.errors import ApiError

KEPT: Final = 20_000
"""Holders whose buckets are kept; the longest unused are forgotten, which fills them."""
MINUTE: Final = 60.0
DAY: Final = 86_400.0
MOST: Final = 10**12
"""The largest quota."""


@dataclass(frozen=True)
class Limits:
    """What a key or a project may use; None means no limit.

    Attributes:
        tokens_per_minute, tokens_per_day: prompt and answer together.
        requests_per_minute: requests that reach an engine.
        tier: "free" answers are the first to be shortened when the server is short of room.
    """

    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    requests_per_minute: int | None = None
    tier: str = "standard"

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Limits:
        """Limits as they are stored, which are such fields as are set."""
        return cls(**(stored or {}))

    def stored(self) -> dict[str, Any]:
        """What is kept of them: what differs from no limit."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "standard")}

    @property
    def none(self) -> bool:
        """Whether nothing is counted."""
        return self.tokens_per_minute is self.tokens_per_day is self.requests_per_minute is None


UNLIMITED: Final = Limits()
"""No limit."""


@dataclass
class Bucket:
    """A level that rises to `capacity` in `seconds`; it may sink below zero when more was used than was taken."""

    capacity: float
    seconds: float
    level: float
    at: float

    def wait_for(self, amount: float, at: float) -> float:
        """Seconds until an amount can be taken; 0 when it can be now. More than the capacity is taken from a full one.

        A clock that goes back gives nothing and takes nothing.
        """
        elapsed = max(0.0, at - self.at)
        self.level = min(self.capacity, self.level + elapsed * self.capacity / self.seconds)
        self.at = at
        missing = min(amount, self.capacity) - self.level
        return 0.0 if missing <= 1e-9 else missing * self.seconds / self.capacity

    def give(self, amount: float) -> None:
        """Put back (or, below zero, take) an amount."""
        self.level = min(self.capacity, self.level + amount)


@dataclass(frozen=True)
class Reservation:
    """What a request took: buckets of tokens, how many tokens from each, and buckets of requests."""

    buckets: tuple[Bucket, ...]
    tokens: int
    requests: tuple[Bucket, ...] = ()

    def settle(self, used: int, *, reached: bool = True) -> None:
        """Give back what was not used, or take what was used beyond; the request too when it `reached` no engine."""
        for bucket in self.buckets:
            bucket.give(self.tokens - used)
        for bucket in () if reached else self.requests:
            bucket.give(1)


NOTHING: Final = Reservation((), 0)

Holder = tuple[str, Limits, int]
"""Whose quota it is, its limits, and the tokens used in the last 24 hours before this server knew of it."""

_KINDS: Final = (
    ("tokens_per_minute", "tokens", MINUTE),
    ("tokens_per_day", "tokens", DAY),
    ("requests_per_minute", "requests", MINUTE),
)


@dataclass
class Quotas:
    """The buckets of all holders; one process owns them. `clock` is monotonic."""

    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[tuple[str, str], Bucket] = field(default_factory=OrderedDict)

    def reserve(self, holders: Sequence[Holder], tokens: int) -> Reservation:
        """Take tokens, and one request, from every holder's buckets, or from none.

        Raises:
            ApiError: 429 naming the quota, with the seconds until the request could pass.
        """
        if all(limits.none for _, limits, _ in holders):
            return NOTHING
        now, taken = self.clock(), []
        for name, limits, spent in holders:
            for kind, unit, seconds in _KINDS:
                capacity = getattr(limits, kind)
                if capacity is None:
                    continue
                amount = tokens if unit == "tokens" else 1
                bucket = self._bucket(name, kind, capacity, seconds, spent if seconds == DAY else 0, now)
                wait = bucket.wait_for(amount, now)
                if wait > 0:
                    raise _over(kind, unit, capacity, wait)
                taken.append((bucket, amount, unit))
        for bucket, amount, _ in taken:
            bucket.level -= amount
        of = {kind: tuple(bucket for bucket, _, unit in taken if unit == kind) for kind in ("tokens", "requests")}
        return Reservation(of["tokens"], tokens, of["requests"])

    def remaining(self, holders: Sequence[Holder]) -> dict[str, str]:
        """The headers by which clients pace themselves, for the tightest limits per minute."""
        headers: dict[str, str] = {}
        for unit in ("tokens", "requests"):
            kind = f"{unit}_per_minute"
            found = [self._kept[name, kind] for name, _, _ in holders if (name, kind) in self._kept]
            if not found:
                continue
            bucket = min(found, key=lambda each: each.level)
            headers[f"x-ratelimit-limit-{unit}"] = str(int(bucket.capacity))
            headers[f"x-ratelimit-remaining-{unit}"] = str(max(0, int(bucket.level)))
            reset = (bucket.capacity - bucket.level) * bucket.seconds / bucket.capacity
            headers[f"x-ratelimit-reset-{unit}"] = f"{max(0.0, reset):.3f}s"
        return headers

    def _bucket(self, name: str, kind: str, capacity: int, seconds: float, spent: int, now: float) -> Bucket:
        bucket = self._kept.get((name, kind))
        if bucket is None:
            bucket = self._kept[name, kind] = Bucket(capacity, seconds, max(0.0, capacity - spent), now)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        elif bucket.capacity != capacity:  # the limit was changed: what was used stays used
            bucket.level += capacity - bucket.capacity
            bucket.capacity = capacity
        self._kept.move_to_end((name, kind))
        return bucket


def _over(kind: str, unit: str, capacity: int, wait: float) -> ApiError:
    seconds = max(1, math.ceil(wait))
    span = kind.removeprefix(f"{unit}_per_")
    message = f"the quota of {capacity} {unit} per {span} is used up; try again in {seconds} seconds"
    code = "insufficient_quota" if span == "day" else "rate_limit_exceeded"
    return ApiError(429, message, type=unit, code=code, retry_after=seconds)
