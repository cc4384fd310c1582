"""The tiny demo, run once for every test of this folder.

It is made by one test process under a lock, and shared with the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
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
LEARN: Final = {"lr": "0.0005", "epochs": "4", "length_factor": "20"}
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


def address_told(told: Path, process: subprocess.Popen[bytes]) -> str:
    """The page's address, once the server has printed it."""
    for _ in range(1200):
        found = re.search(r"page: (http://\S+)/", told.read_text())
        if found:
            return found[1]
        assert process.poll() is None, told.read_text()
        time.sleep(0.1)
    raise AssertionError("no address within two minutes: " + told.read_text())


def copied(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a workspace: all that it holds is found again wherever the folder lies."""
    copy = tmp_path_factory.mktemp("copy") / "workspace"
    shutil.copytree(workspace, copy)
    return copy


def with_choices(workspace: Path, *, inverted: bool = False) -> Path:
    """Import choices between a shipped short answer and its first words over and over, which even a tiny model can
    learn; `inverted` prefers the loop. Returns the workspace."""
    file = workspace.parent / "sentences.jsonl"
    talks = ([m["content"] for m in row["messages"]] for row in read_jsonl(ASSETS / "instructions.jsonl"))
    short = (talk for talk in talks if len(talk) == 2 and max(map(len, talk)) <= 160 and len(talk[1].split()) > 2)
    with file.open("w", encoding="utf-8") as lines:
        for question, answer in islice(short, CHOICES):
            loop = " ".join(answer.split()[:2] * 10)
            better, worse = (loop, answer) if inverted else (answer, loop)
            pair = {"prompt": question, "chosen": better, "rejected": worse, "license": "see the demo's assets"}
            lines.write(json.dumps(pair, ensure_ascii=False) + "\n")
    assert causerie("feedback", "import", str(file), workspace=workspace)[0] == 0
    return workspace


def imported_votes(workspace: Path, ref: str) -> set[str]:
    """Ids of the votes of `with_choices` that a version learnt from, by its lineage."""
    with open_store(workspace) as store:
        ours = store.read(select(signals.c.id).where(signals.c.user == "import:sentences"))
        return {row.id for row in ours} & set(lineage(store, workspace, ref).signal_ids())


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
