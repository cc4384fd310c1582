"""What checkpoints cost, what a resume costs, and how much work survives a kill every 30 s.

Three runs of the demo's size (depth 4, 4,096 tokens an update) on random tokens:
1. overhead: seconds that checkpoints kept the training waiting, over the run's seconds, at the default interval;
2. resume: from the end of imports to the end of the first update after a SIGKILL, without that update;
3. goodput: seconds in updates that count over the seconds of all sittings (imports left out and shown apart) while the
   process is killed every `--every` seconds.

    .venv/bin/python bench/checkpoints.py [--seconds 90] [--every 30] [--quick]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, LENGTH, VOCABULARY = 16, 256, 4096


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=float, default=90)
    made.add_argument("--every", type=float, default=30)
    made.add_argument("--depth", type=int, default=4)
    made.add_argument("--quick", action="store_true")
    made.add_argument("--train", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.quick:
        args.seconds, args.every, args.depth = 12, 6, 2
    if args.train:
        train(Path(args.train), args.seconds, args.depth)
        return
    measure(args)


def measure(args: argparse.Namespace) -> None:
    from causerie.core import read_events

    with tempfile.TemporaryDirectory() as place:
        kills, ended = 0, False
        began = time.time()
        while not ended:
            process = subprocess.Popen(
                [sys.executable, __file__, "--train", place, "--seconds", str(args.seconds), "--depth", str(args.depth)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())},
            )  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()  # imports are done
            try:
                ended = process.wait(args.every) == 0
                if not ended:
                    sys.exit("the training failed")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        wall = time.time() - began
        (run,) = (Path(place) / "runs").iterdir()
        events = read_events(run)
    steps = [row for row in events if row["event"] == "step"]
    saves = [row for row in events if row["event"] == "checkpoint"]
    blocked = sum(row["blocked_seconds"] for row in saves)
    done = {row["step"]: row["step_seconds"] for row in steps}
    resumes = []
    for number, row in enumerate(events):
        if row["event"] == "resume":
            ready = max(r["time"] for r in events[:number] if r["event"] == "imported")
            first = next((r for r in events[number:] if r["event"] == "step"), None)
            if first:
                resumes.append(first["time"] - ready - first["step_seconds"])
    sittings = [row["time"] for row in events if row["event"] == "imported"]
    inside = sum(
        max(r["time"] for r in events if begin <= r["time"] < end) - begin
        for begin, end in zip(sittings, [*sittings[1:], float("inf")], strict=True)
    )
    print(
        f"depth {args.depth}: {len(done)} updates that count, {len(steps) - len(done)} done twice, {kills} kills, {len(saves)} checkpoints"
    )
    print(f"overhead of checkpoints: {blocked / sum(done.values()):.2%} of the updates' time (goal 3.5 %)")
    if resumes:
        print(
            f"resume to the next update, beside imports: mean {sum(resumes) / len(resumes):.2f} s, worst {max(resumes):.2f} s (goal 5 s)"
        )
    print(
        f"goodput beside imports: {sum(done.values()) / inside:.1%} (goal 95 %); with imports {sum(done.values()) / wall:.1%}"
    )


def train(place: Path, seconds: float, depth: int) -> None:
    import torch

    from causerie.core import open_run
    from causerie.model import init_model, shape_from_depth
    from causerie.train import TrainSettings, fit
    from causerie.train.pretraining import next_token_loss

    class Rows:
        fingerprint = "random"

        def micro_batches(self, step: int):
            tokens = torch.randint(0, VOCABULARY, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(step))
            positions = torch.arange(LENGTH).expand(ROWS, -1)
            documents = torch.zeros(ROWS, LENGTH, dtype=torch.int32)
            return [{"ids": tokens[:, :-1], "targets": tokens[:, 1:], "positions": positions, "doc_ids": documents}]

    settings = TrainSettings(minutes=seconds / 60, batch_size=ROWS, seq_len=LENGTH, compile="off", device="cpu")
    with open_run(place, "bench", "checkpoints", "0" * 64, {}) as run:
        run.log("imported")
        print("ready", flush=True)
        fit(init_model(shape_from_depth(depth, VOCABULARY), 0), next_token_loss, Rows(), settings, run)


if __name__ == "__main__":
    main()
