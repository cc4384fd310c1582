"""Run as a script: a list of launches of a tiny training on several processes, which are forks, so that torch is imported
only once. The first process of each launch writes what came out as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from causerie.core import Run, open_run, read_events
from causerie.model import add_extras, fold_extras
from causerie.train import World, fit, loop, open_world
from causerie.train.sharding import gathered
from tests.train.tiny import RandomRows, objective, settings, tiny_model, weights_digest


class Mute(Run):
    """The run as other processes than the first see it."""

    def log(self, event: str, **values: object) -> None:
        """Nothing."""


def train(
    world: World, place: Path, name: str, steps: int, exact: int, optimizer: str, tensor: int, parts: int, extras: bool
) -> None:
    """One run of `steps` updates, or the rest of it; with `extras` they are trained and folded at the end."""
    model = tiny_model(n_kv_head=2)
    if extras:
        add_extras(model, embed_norm=True, residual_scales=True, qk_gain=1.15)
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
        fit(
            model,
            objective,
            rows,
            wanted,
            Mute(place / "runs" / f"train-{name}-00000000", "train", name, {}),
            world=world,
        )
    finished = fold_extras(gathered(model))
    if world.leads:
        found = {"digest": weights_digest(finished), "losses": losses}
        found["weights"] = [float(p.detach().double().sum()) for p in finished.parameters()]
        (place / f"{name}.{steps}.json").write_text(json.dumps(found))


def break_at_step_three(fault: str) -> None:
    """Kill or freeze this process before its fourth update."""
    number = signal.SIGKILL if fault == "kill" else signal.SIGSTOP
    before = loop._Sitting.update

    def update(self: Any, share: float) -> None:
        if self.progress.step == 3:
            time.sleep(0.2)
            os.kill(os.getpid(), number)
        before(self, share)

    loop._Sitting.update = update  # type: ignore[method-assign]


def quiet_port() -> int:
    """A free port below those that the system gives to connections: nobody takes it before the processes meet there."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def launch(place: Path, job: dict[str, Any]) -> list[int]:
    """Fork the processes of a launch and wait for them; their wait statuses. A frozen one is killed at the end."""
    port = quiet_port()
    fault, size = job.pop("fault", ""), job.pop("processes")
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            status = 1
            try:
                torch.set_num_threads(1)
                if fault and rank == 1:
                    break_at_step_three(fault)
                with open_world(torch.device("cpu"), job["tensor"]) as world:
                    train(world, place, **job)
                status = 0
            except BaseException as error:
                sys.stderr.write(f"rank {rank}: {error!r}\n")
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children if not (fault == "freeze" and child == children[1])]
    if fault == "freeze":
        os.kill(children[1], signal.SIGKILL)
        os.waitpid(children[1], 0)
    return statuses


def main() -> None:
    """Arguments: folder, JSON list of launches. Prints a list: wait statuses, seconds, and what was written, of each."""
    place, results = Path(sys.argv[1]), []
    for job in json.loads(sys.argv[2]):
        plan = {"exact": 0, "optimizer": "adamw", "tensor": 1, "parts": 4, "extras": False, **job}
        written = place / f"{plan['name']}.{plan['steps']}.json"
        began = time.monotonic()
        statuses = launch(place, plan)
        found = json.loads(written.read_text()) if written.exists() else {}
        results.append({**found, "statuses": statuses, "seconds": time.monotonic() - began})
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
