"""Fixtures of the store's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from causerie.store import Store, open_store


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    """An open store in a fresh workspace."""
    with open_store(workspace) as opened:
        yield opened
