"""From kill -9 of the engine's process to the first token of a request that waited, with a spare process at hand.

python bench/engine_restart.py --model FOLDER [--quantize int8] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

from causerie.infer import EngineClient, EngineConfig, Sampling
from causerie.infer.client import SPARE_AFTER


async def measure(folder: Path, config: EngineConfig, rounds: int) -> tuple[float, list[float]]:
    """Seconds of the first start, and of each restart."""
    client = EngineClient(folder, config)
    started = time.perf_counter()
    await client.start()
    first = time.perf_counter() - started
    spent = []
    for _ in range(rounds):
        await asyncio.sleep(SPARE_AFTER + 5)  # until the spare process has imported what it needs
        os.kill(client.info["pid"], signal.SIGSTOP)  # what is asked for now waits in the queue
        stream = client.generate([5, 6, 7], Sampling(max_tokens=3, temperature=0))
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.1)
        killed = time.perf_counter()
        os.kill(client.info["pid"], signal.SIGKILL)
        await waiting
        spent.append(time.perf_counter() - killed)
        await stream.aclose()
    await client.stop()
    return first, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: a random model of 6.6M parameters")
    parser.add_argument("--quantize", choices=["int8", "int8-head"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = args.model or Path(place)
        if not args.model:
            from causerie.model import init_model, save_model, shape_from_depth

            save_model(init_model(shape_from_depth(6, 4096), 0), folder, None)
        config = EngineConfig(quantize=args.quantize)
        first, spent = asyncio.run(measure(folder, config, 1 if args.quick else args.rounds))
    told = ", ".join(f"{value:.2f}" for value in spent)
    print(f"start {first:.2f} s; kill -9 to the first token of a waiting request {told} s", end="")
    print(f", median {statistics.median(spent):.2f} s (goal: 2)")


if __name__ == "__main__":
    main()
