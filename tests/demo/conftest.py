"""The tiny demo, run once for every test of this folder, and a copy of it whose model has learnt from votes.

Each is made by one test process under a lock, and shared with the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select

from causerie.core import read_jsonl
from causerie.demo.config import ASSETS
from causerie.hub import lineage
from causerie.store import open_store, signals

Circle = tuple[Path, dict[str, Any], str]
"""The demo's workspace, the summary that it printed, and what it told on stderr."""

CHOICES: Final = 160
LEARN: Final = ("--lr", "0.0005", "--epochs", "4", "--length-factor", "20")
"""A round that a model of 0.2 million parameters learns from. The demo's tiny model never ends its answers; one that
does gives much shorter ones, which the gate's usual limit on length would refuse."""


def run_demo(workspace: Path) -> tuple[dict[str, Any], str, float]:
    """The summary on stdout's last line, the narration on stderr, and the seconds it took."""
    command = [sys.executable, "-m", "causerie", "demo", "--size", "tiny", "--no-serve", "--json"]
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--workspace", str(workspace)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return last_json(done.stdout), done.stderr, time.monotonic() - started


@pytest.fixture(scope="session")
def circle(shared: Path) -> Circle:
    """The finished demo, in a folder that the tests may read and run the demo in again."""

    def make(workspace: Path) -> dict[str, Any]:
        summary, told, _ = run_demo(workspace)
        shutil.copytree(workspace, shared / "finished")
        return {"summary": summary, "told": told}

    made = once(shared / "circle", make)
    return shared / "circle", made["summary"], made["told"]


@pytest.fixture(scope="session")
def finished(circle: Circle) -> Path:
    """The demo's workspace as it was left, to be copied (`copied`) by tests that add to it."""
    return circle[0].with_name("finished")


@dataclass(frozen=True)
class Taught:
    """A copy of the demo's workspace whose model learnt from imported choices, and what `improve` answered.

    `before` is the version that the demo left; `votes` are the ids of the imported choices that were learnt from.
    """

    workspace: Path
    before: str
    status: int
    result: dict[str, Any]
    votes: frozenset[str]


@pytest.fixture(scope="session")
def taught(shared: Path, circle: Circle, finished: Path) -> Taught:
    """A round on choices that even a tiny model can learn; its workspace, too, is only to be copied."""

    def make(workspace: Path) -> dict[str, Any]:
        shutil.copytree(finished, workspace)
        imported = write_choices(shared / "sentences.jsonl")
        causerie("feedback", "import", str(imported), workspace=workspace)
        status, told = causerie("improve", "demo", *LEARN, "--json", workspace=workspace)
        result = last_json(told)
        with open_store(workspace) as store:
            ours = store.read(select(signals.c.id).where(signals.c.user == "import:sentences"))
            used = lineage(store, workspace, result["candidate"]).signal_ids()
        votes = sorted({row.id for row in ours} & set(used))
        return {"status": status, "result": result, "votes": votes}

    made = once(shared / "taught", make)
    before = circle[1]["verdict"]["version"]
    return Taught(shared / "taught", before, made["status"], made["result"], frozenset(made["votes"]))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `make(folder)` answered in the first test process that came here; the others wait for it."""
    answer = Path(f"{folder}.json")
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            made = json.dumps(make(folder))
            answer.write_text(made, encoding="utf-8")
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def copied(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a workspace: all that it holds is found again wherever the folder lies."""
    copy = tmp_path_factory.mktemp("copy") / "workspace"
    shutil.copytree(workspace, copy)
    return copy


def causerie(*words: str, workspace: Path) -> tuple[int, str]:
    """Exit status (0, or 1 for a "no") and stdout of a command, as a shell sees them."""
    command = [sys.executable, "-m", "causerie", *words, "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 or (done.returncode == 1 and "Traceback" not in done.stderr), done.stderr[-3000:]
    return done.returncode, done.stdout


def last_json(stdout: str) -> dict[str, Any]:
    """What a command said with `--json`: its last line."""
    found: dict[str, Any] = json.loads(stdout.strip().split("\n")[-1])
    return found


def write_choices(path: Path, *, inverted: bool = False) -> Path:
    """Choices between a shipped short answer and its first words over and over; `inverted` prefers the loop."""
    talks = ([m["content"] for m in row["messages"]] for row in read_jsonl(ASSETS / "instructions.jsonl"))
    short = (talk for talk in talks if len(talk) == 2 and max(map(len, talk)) <= 160 and len(talk[1].split()) > 2)
    with path.open("w", encoding="utf-8") as file:
        for question, answer in islice(short, CHOICES):
            loop = " ".join(answer.split()[:2] * 10)
            better, worse = (loop, answer) if inverted else (answer, loop)
            pair = {"prompt": question, "chosen": better, "rejected": worse, "license": "see the demo's assets"}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    return path
