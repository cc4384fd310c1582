"""Fixtures shared by all tests: a fresh workspace, and the larger data pack where it is there."""

from __future__ import annotations

import operator
import os
import random
import sys
from pathlib import Path

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG as usual_patience
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
for each in ("connect", "read", "write", "pool"):
    setattr(usual_patience, each, 60.0)  # likewise; httpx gives up after five seconds


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test draws without a seed of its own is the same alone, after any other test, and every day."""
    random.seed(0)
    for library, seed in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if library in sys.modules:
            operator.attrgetter(seed)(sys.modules[library])(0)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Whether all tests were run, for `scripts/run_tests.py`, which runs the failed ones again."""
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set("causerie/finished", int(exitstatus))


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
