"""The tiny demo, run once for every test of this folder, and copies of its workspace for tests that change it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Circle = tuple[Path, dict[str, Any], str]
"""The demo's workspace, the summary that it printed, and what it told on stderr."""


def run_demo(workspace: Path) -> tuple[dict[str, Any], str, float]:
    """The summary on stdout's last line, the narration on stderr, and the seconds it took."""
    command = [sys.executable, "-m", "causerie", "demo", "--size", "tiny", "--no-serve", "--json"]
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--workspace", str(workspace)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().split("\n")[-1]), done.stderr, time.monotonic() - started


@pytest.fixture(scope="session")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """The finished demo; tests that add to its workspace take a copy (`copy_circle`)."""
    workspace = tmp_path_factory.mktemp("circle") / "workspace"
    summary, told, _ = run_demo(workspace)
    return workspace, summary, told


@pytest.fixture(scope="module")
def copy_circle(circle: Circle, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes copies of the demo's workspace: all that it holds is found again wherever the folder lies."""

    def copy() -> Path:
        workspace = tmp_path_factory.mktemp("copy") / "workspace"
        shutil.copytree(circle[0], workspace)
        return workspace

    return copy


@dataclass(frozen=True)
class Taught:
    """A copy of the demo's workspace whose model learnt from imported choices, and what `improve` answered."""

    workspace: Path
    before: str
    result: dict[str, Any]
    signals: tuple[str, ...]


@pytest.fixture(scope="session")
def taught(circle: Circle, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Choices that even a tiny model can learn: a real short sentence over the same words in a loop."""
    workspace = copied(circle[0], tmp_path_factory)
    before = circle[1]["verdict"]["version"]
    votes = write_choices(workspace.parent / "sentences.jsonl", CHOICES)
    causerie("feedback", "import", str(votes), "--source", "sentences", workspace=workspace)
    status, result = causerie("improve", "demo", *LEARN, workspace=workspace)
    assert status == 0, result["why"]
    with open_store(workspace) as store:
        said = select(signals.c.id).where(signals.c.user == "import:sentences")
        used = {row.id for row in store.read(said)} & set(lineage(store, workspace, result["version"]).signal_ids())
    return Taught(workspace, before, result, tuple(sorted(used)))


def causerie(*arguments: str, workspace: Path) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON answer of a command, as a shell would see them."""
    command = [sys.executable, "-m", "causerie", *arguments, "--workspace", str(workspace), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout.strip().split("\n")[-1])


def write_choices(path: Path, rows: int, *, inverted: bool = False) -> Path:
    """Choices between a shipped answer and its first words over and over; `inverted` prefers the loop."""
    with path.open("w", encoding="utf-8") as file:
        for row in islice(read_jsonl(ASSETS / "instructions.jsonl"), 10 * rows):
            question, answer = (message["content"] for message in row["messages"][-2:])
            if rows == 0 or row["source"] != "causerie-basics":
                continue
            rows -= 1
            loop = " ".join(answer.split()[:2] * 10)
            chosen, rejected = (loop, answer) if inverted else (answer, loop)
            pair = {"prompt": question, "chosen": chosen, "rejected": rejected, "license": row["license"]}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    return path
