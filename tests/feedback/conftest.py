"""Fixtures of the feedback tests: a store, and short ways to record answers and votes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from causerie.feedback import Exposure, Signal, record_exposure, record_signal
from causerie.store import Store, open_store


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    """An open store in a fresh workspace."""
    with open_store(workspace) as opened:
        yield opened


class Page:
    """Plays the chat page: shows answers to a user and takes their votes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = 1_000.0

    def show(self, question: str, text: str, user: str = "ada", **more: Any) -> Exposure:
        prompt = ({"role": "user", "content": question},)
        values = {"model": "home", "version": 1, "version_key": "k" * 64, "consent": True, "created": self.tick()}
        shown = Exposure(user=user, prompt=prompt, text=text, **{**values, **more})
        record_exposure(self.store, shown)
        return shown

    def vote(self, exposure: Exposure, kind: Any, value: dict[str, Any], user: str = "ada", **more: Any) -> Signal:
        said = Signal(exposure.id, user, kind, value, **{"created": self.tick(), **more})
        record_signal(self.store, said)
        return said

    def thumb(self, exposure: Exposure, up: bool, user: str = "ada", **more: Any) -> Signal:
        return self.vote(exposure, "thumb", {"label": up}, user, **more)

    def choose(self, chosen: Exposure, *others: Exposure, user: str = "ada", outcome: str = "chosen") -> Signal:
        return self.vote(chosen, "choice", {"outcome": outcome, "others": [other.id for other in others]}, user)

    def tick(self) -> float:
        self.clock += 1
        return self.clock


@pytest.fixture
def page(store: Store) -> Page:
    """A page on the store."""
    return Page(store)
