from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from causerie.core import Run, open_run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(tmp_path, "train", "tiny", "0" * 64, {}) as opened:
        yield opened
