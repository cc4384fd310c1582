"""Time to first token of a conversation's second turn on a history of 2,000 tokens, beside its first turn.

python bench/prefix_cache.py --model FOLDER [--quantize int8] [--quick]
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from causerie.infer.process import ENVIRONMENT


def as_the_worker() -> None:
    """Start this program anew with the environment of the engine's own process, which is what is to be measured."""
    if not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**ENVIRONMENT, **os.environ})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: a random model of 6.6M parameters")
    parser.add_argument("--quantize", choices=["int8", "int8-head"])
    parser.add_argument("--history", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round on 300 tokens")
    args = parser.parse_args()
    as_the_worker()
    if args.quick:
        args.rounds, args.history = 1, 300
    import torch

    from causerie.infer import Engine, EngineConfig, Sampling
    from causerie.model import init_model, save_model, shape_from_depth

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = args.model or Path(place)
        if not args.model:
            save_model(init_model(shape_from_depth(6, 4096, 4096), 0), folder, None)
        engine = Engine(folder, EngineConfig(quantize=args.quantize))

        def first_token(ids: list[int]) -> tuple[float, list[int]]:
            started = time.perf_counter()
            engine.add("x", ids, Sampling(max_tokens=40, temperature=0.0))
            said: list[int] = []
            spent = 0.0
            while engine.has_work:
                for event in engine.step():
                    spent = spent or time.perf_counter() - started
                    said += event.ids
            return spent, said

        pairs = []
        for round_ in range(args.rounds):
            draw = random.Random(round_)
            history = [draw.randrange(10, 4000) for _ in range(args.history)]
            first, answer = first_token(history)
            second, _ = first_token(history + answer + [draw.randrange(10, 4000) for _ in range(30)])
            pairs.append((first, second))
        ratio = statistics.median(second / first for first, second in pairs)
        one, two = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        print(
            f"history {args.history}: first token of turn 1 after {one:.0f} ms, of turn 2 (40 said, 30 asked)"
            f" after {two:.0f} ms, ratio {ratio:.3f}; {engine.stats['cached_tokens']} tokens from the cache"
        )


if __name__ == "__main__":
    main()
