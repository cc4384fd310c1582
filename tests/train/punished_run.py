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


def in_child(workspace: Path, name: str, after: float | None) -> int:
    """`run_once` in a fork that is killed after so many seconds; its wait status."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        if after is not None:
            threading.Thread(
                target=lambda: (time.sleep(after), os.kill(os.getpid(), signal.SIGKILL)), daemon=True
            ).start()
        try:
            run_once(workspace, name)
        except BaseException as error:
            sys.stderr.write(repr(error))
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Argument: the workspace. The mean time between kills is a ninth of the unbroken run's."""
    workspace, dice = Path(sys.argv[1]), random.Random(0)
    torch.set_num_threads(1)
    began = time.monotonic()
    run_once(workspace, "unbroken")
    whole = time.monotonic() - began
    kills = 0
    while in_child(workspace, "punished", dice.uniform(0.02, 0.2) * whole if kills < 5 else None) != 0:
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
