"""Run as a script: one run that is killed at random times until it is done, beside an unbroken one; prints both."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from causerie.core import open_run
from causerie.train import fit
from causerie.train.plot import loss_curve
from tests.train.tiny import RandomRows, objective, settings, tiny_model, weights_digest

STEPS = 120


def run_once(workspace: Path, name: str) -> None:
    """The run, or the rest of it; its weights' digest is left in a file."""
    with open_run(workspace, "train", name, "0" * 64, {}) as run:
        model = tiny_model()
        fit(model, objective, RandomRows(), settings(steps=STEPS, checkpoint_every=5), run)
    (workspace / f"{name}.digest").write_text(weights_digest(model))


def kill_after(events: Path, updates: int) -> None:
    """Kill this process when it has logged so many updates more, wherever it then is in the next."""
    begun = lines(events)
    while lines(events) < begun + updates:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def lines(events: Path) -> int:
    """Updates in a log."""
    return events.read_bytes().count(b'"event": "step"') if events.exists() else 0


def in_child(workspace: Path, name: str, after: int | None) -> int:
    """`run_once` in a fork that is killed after so many updates; its wait status."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        if after is not None:
            events = workspace / "runs" / f"train-{name}-00000000" / "events.jsonl"
            threading.Thread(target=kill_after, args=(events, after), daemon=True).start()
        try:
            run_once(workspace, name)
        except BaseException as error:
            sys.stderr.write(repr(error))
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Argument: the workspace. The mean number of updates between kills is a ninth of the run's."""
    workspace, dice = Path(sys.argv[1]), random.Random(0)
    torch.set_num_threads(1)
    run_once(workspace, "unbroken")
    kills = 0
    while in_child(workspace, "punished", dice.randint(3, 23) if kills < 5 else None) != 0:
        kills += 1
    found = {"kills": kills}
    for name, prefix in (("unbroken", "unbroken_"), ("punished", "")):
        rows = loss_curve(workspace / "runs" / f"train-{name}-00000000")
        found[f"{prefix}losses"] = [[row["step"], row["loss"], row["grad_norm"]] for row in rows]
        found[f"{prefix}order"] = [row["step"] for row in rows]
        found[f"{prefix}digest"] = (workspace / f"{name}.digest").read_text()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
