"""Run as a script: kill a run at every crash point, resume it, and print what came out as JSON.

Each scenario is a fork of this process, so that torch is imported only once.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import torch

from causerie.core import open_run
from causerie.train import fit
from tests.train.tiny import RandomRows, objective, settings, tiny_model, weights_digest


def run_once(workspace: Path, name: str) -> None:
    """A whole run; its final weights' digest is left in a file."""
    with open_run(workspace, "train", name, "0" * 64, {}) as run:
        model = tiny_model()
        fit(model, objective, RandomRows(), settings(steps=6, checkpoint_every=2, keep_checkpoints=1), run)
    (workspace / f"{name}.digest").write_text(weights_digest(model))


def in_child(workspace: Path, name: str, **environment: str) -> int:
    """`run_once` in a fork; its wait status."""
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        torch.set_num_threads(1)
        try:
            run_once(workspace, name)
        except BaseException as error:
            sys.stderr.write(repr(error))
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Dry run to list the points, then every point at its first and last visit."""
    workspace = Path(sys.argv[1])
    torch.set_num_threads(1)
    run_once(workspace, "warm-up")  # what torch imports late is imported before the forks
    log = workspace / "points"
    assert in_child(workspace, "unbroken", CAUSERIE_CRASH_LOG=str(log)) == 0
    visits = Counter(log.read_text().split())
    results = {"unbroken": (workspace / "unbroken.digest").read_text(), "points": dict(visits), "runs": {}}
    for point, count in visits.items():
        for visit in sorted({1, count}):
            name = f"{point}.{visit}"
            killed = in_child(workspace, name, CAUSERIE_CRASH_AT=f"{point}:{visit}")
            resumed = in_child(workspace, name)
            digest = workspace / f"{name}.digest"
            left = [p.name for p in (workspace / "runs").glob(f"train-{name}-*/checkpoints/.*")]
            results["runs"][name] = {
                "killed": os.WTERMSIG(killed),
                "resumed": resumed,
                "digest": digest.read_text() if digest.exists() else "",
                "left": left,
            }
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
