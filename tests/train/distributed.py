"""Run by torchrun in the tests: train a tiny model on several processes; the first one writes what came out as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from causerie.core import Run, open_run, read_events
from causerie.train import World, fit, open_world
from causerie.train.sharding import gathered
from tests.train.tiny import RandomRows, objective, settings, tiny_model, weights_digest


class Mute(Run):
    """The run as other processes than the first see it."""

    def log(self, event: str, **values: object) -> None:
        """Nothing."""


def train(world: World, place: Path, name: str, steps: int, exact: int, optimizer: str, tensor: int, parts: int) -> None:
    """One run of `steps` updates, or the rest of it."""
    model = tiny_model(n_kv_head=2)
    wanted = settings(
        steps=steps, checkpoint_every=2, exact_parts=exact, optimizer=optimizer, schedule="wsd", decay_fraction=0.0,
        warmup=0, batch_size=8, tensor_parallel=tensor,
    )  # fmt: skip
    rows = RandomRows((8 // parts,) * parts)
    if world.leads:
        with open_run(place, "train", name, "0" * 64, {}) as run:
            fit(model, objective, rows, wanted, run, world=world)
            losses = [row["loss"] for row in read_events(run.path) if row["event"] == "step"]
    else:
        fit(model, objective, rows, wanted, Mute(place / "runs" / f"train-{name}-00000000", "train", name, {}), world=world)
    finished = gathered(model)
    if world.leads:
        found = {"digest": weights_digest(finished), "losses": losses}
        found["weights"] = [float(p.double().sum()) for p in finished.parameters()]
        (place / f"{name}.{steps}.json").write_text(json.dumps(found))


def main() -> None:
    """Arguments: folder, name, steps, exact parts, optimizer, tensor parallel, micro-batches, rank to kill or freeze."""
    place, name, steps, exact, optimizer, tensor, parts = sys.argv[1:8]
    torch.set_num_threads(1)
    fault = sys.argv[8] if len(sys.argv) > 8 else ""
    with open_world(torch.device("cpu")) as world:
        if fault and world.rank == 1:
            number = signal.SIGKILL if fault == "kill" else signal.SIGSTOP
            from causerie.train import loop

            before = loop._Sitting.update

            def update(self: object, share: float) -> None:
                if self.progress.step == 3:  # type: ignore[attr-defined]
                    time.sleep(0.2)
                    os.kill(os.getpid(), number)
                before(self, share)  # type: ignore[arg-type]

            loop._Sitting.update = update  # type: ignore[method-assign]
        train(world, Path(place), name, int(steps), int(exact), optimizer, int(tensor), int(parts))


if __name__ == "__main__":
    main()
