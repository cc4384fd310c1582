"""Run as a script: a training run that goes on until it is stopped; leaves with the status that the command line would."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from causerie.core import Stopped, open_run
from causerie.train import fit
from tests.train.tiny import RandomRows, objective, settings, tiny_model


def main() -> None:
    """Argument: the workspace."""
    torch.set_num_threads(1)
    with open_run(Path(sys.argv[1]), "train", "endless", "0" * 64, {}) as run:
        fit(tiny_model(), objective, RandomRows(), settings(steps=10**6, checkpoint_every=50), run)


if __name__ == "__main__":
    try:
        main()
    except Stopped as stop:
        sys.stderr.write(str(stop))
        raise SystemExit(stop.exit_status) from stop
