"""Fixtures shared by all tests: a fresh workspace, and the larger data pack where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_COLOR", "1")

from causerie.core import data_pack

settings.register_profile(
    "causerie",
    deadline=None,  # a busy machine is no failure
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CAUSERIE_SAME_EXAMPLES" in os.environ,  # the check judges a change, not the day's luck
)
settings.load_profile("causerie")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def pack() -> Path:
    """The larger data pack; tests that ask for it are skipped on machines without it."""
    folder = data_pack()
    if folder is None:
        pytest.skip("the larger data pack is not beside this checkout (CAUSERIE_DATA)")
    return folder
