"""Tokens per second of the engine beside transformers' continuous batching and llama.cpp, same weights, greedy.

    python bench/decode.py --quick                       # random small model, transformers only
    python bench/decode.py --model FOLDER --quantize int8 --gguf FILE --peer-python VENV/bin/python

Every figure is the median of interleaved rounds, every ratio the median of the rounds' ratios. `decode` counts the new
tokens after all prompts were computed; `prefill` counts prompt tokens per second with one new token each. Start-up of
either engine is not counted. llama.cpp runs in its own Python (`--peer-python` has
llama-cpp-python) through its C interface, all sequences in one batch, the likeliest token taken.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[int, int, int], tuple[float, float]]
"""(batch, prompt tokens, new tokens) → seconds of prefill and of decode."""


def prompts(batch: int, length: int, vocabulary: int) -> list[list[int]]:
    draw = random.Random(batch * 1000 + length)
    return [[draw.randrange(10, vocabulary) for _ in range(length)] for _ in range(batch)]


def ours(folder: Path, args: argparse.Namespace, vocabulary: int) -> Run:
    import torch

    from causerie.infer import Engine, EngineConfig, Sampling

    torch.set_num_threads(args.threads)
    quantize = None if args.quantize == "none" else args.quantize
    config = EngineConfig(dtype=args.dtype, quantize=quantize, prefix_cache=False, max_batch_tokens=args.batch_tokens)
    engine = Engine(folder, config)

    def run(batch: int, length: int, new: int) -> tuple[float, float]:
        started = time.perf_counter()
        for index, prompt in enumerate(prompts(batch, length, vocabulary)):
            engine.add(str(index), prompt, Sampling(max_tokens=new, temperature=0.0))
        first: set[str] = set()
        filled = None
        while engine.has_work:
            first |= {event.request_id for event in engine.step()}
            if filled is None and len(first) == batch:
                filled = time.perf_counter()
        assert filled is not None
        return filled - started, time.perf_counter() - filled

    return run


def theirs(folder: Path, args: argparse.Namespace, vocabulary: int) -> Run:
    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
    from transformers import logging as noise

    noise.set_verbosity_error()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype)).eval()

    def run(batch: int, length: int, new: int) -> tuple[float, float]:
        settings = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0)
        batching = ContinuousBatchingConfig(
            page_size=32,  # the nearest to ours that it takes; with its default of 256 it reads more than it needs
            num_blocks=batch * (-(-(length + new) // 32) + 2) + 16,
            max_batch_tokens=args.batch_tokens,
            allow_block_sharing=False,
        )
        done = model.generate_batch(
            prompts(batch, length, vocabulary),
            generation_config=settings,
            continuous_batching_config=batching,
            record_timestamps=True,
            progress_bar=False,
            warmup=False,
        ).values()
        assert all(len(item.generated_tokens) == new for item in done), "transformers stopped early"
        started = min(item.lifespan[0] for item in done)  # its start-up is not counted
        filled = max(item.timestamps[0] for item in done)
        return filled - started, max(item.timestamps[-1] for item in done) - filled

    return run


class Llama:
    """llama.cpp in another Python, spoken to in lines of JSON."""

    def __init__(self, args: argparse.Namespace, vocabulary: int) -> None:
        command = [args.peer_python, __file__, "--serve-llama", "--gguf", args.gguf, "--threads", str(args.threads)]
        ours = ("OMP_", "GOMP_", "MALLOC_")  # its threads wait as it likes best
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.vocabulary = vocabulary

    def __call__(self, batch: int, length: int, new: int) -> tuple[float, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"prompts": prompts(batch, length, self.vocabulary), "new": new}) + "\n")
        self.process.stdin.flush()
        filled, decoded = json.loads(self.process.stdout.readline())
        return filled, decoded


def serve_llama(gguf: str, threads: int) -> None:
    """The other end of `Llama`."""
    import llama_cpp as lib
    import numpy as np

    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(gguf.encode(), lib.llama_model_default_params())
    vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))

    def run(texts: list[list[int]], new: int) -> tuple[float, float]:
        settings = lib.llama_context_default_params()
        settings.n_ctx = len(texts) * (len(texts[0]) + new + 8)
        settings.n_batch = settings.n_ubatch = 512
        settings.n_seq_max = len(texts)
        settings.n_threads = settings.n_threads_batch = threads
        context = lib.llama_init_from_model(model, settings)
        batch = lib.llama_batch_init(512, 0, 1)

        def decode(items: list[tuple[int, int, int, bool]]) -> list[int]:
            batch.n_tokens = len(items)
            for place, (token, position, sequence, wanted) in enumerate(items):
                batch.token[place], batch.pos[place], batch.logits[place] = token, position, wanted
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
            assert lib.llama_decode(context, batch) == 0
            rows = [place for place, item in enumerate(items) if item[3]]
            return [
                int(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, row), (vocabulary,)).argmax())
                for row in rows
            ]

        length = len(texts[0])
        work = [
            (token, place, index, place == length - 1)
            for index, text in enumerate(texts)
            for place, token in enumerate(text)
        ]
        started = time.perf_counter()
        last: list[int] = []
        for start in range(0, len(work), 512):
            last += decode(work[start : start + 512])
        filled = time.perf_counter()
        for step in range(new - 1):
            last = decode([(token, length + step, index, True) for index, token in enumerate(last)])
        spent = filled - started, time.perf_counter() - filled
        lib.llama_batch_free(batch)
        lib.llama_free(context)
        return spent

    run([[5, 6, 7]], 2)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run(request["prompts"], request["new"])), flush=True)


def measure(what: str, runs: dict[str, Run], args: argparse.Namespace, batch: int) -> dict[str, Any]:
    """One line: every engine's median tokens/s, and our ratio to each of the others."""
    length, new = (args.prompt, args.new) if what == "decode" else (args.long_prompt, 1)
    tokens = batch * (new - 1) if what == "decode" else batch * length
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            rates[name].append(tokens / run(batch, length, new)[what == "decode"])
    line: dict[str, Any] = {"what": what, "batch": batch}
    line |= {name: round(statistics.median(values), 1) for name, values in rates.items()}
    for name in list(runs)[1:]:
        ratios = [mine / other for mine, other in zip(rates["causerie"], rates[name], strict=True)]
        line[f"ratio {name}"] = round(statistics.median(ratios), 2)
    print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)
    return line


def small_model(folder: Path) -> None:
    from causerie.model import init_model, save_model, shape_from_depth
    from causerie.text import train_bpe

    tokenizer = train_bpe(["a few words to make a vocabulary of bytes"] * 4, 300)
    tokenizer.save(folder)
    save_model(init_model(shape_from_depth(6, 4096), 0), folder, folder)


def as_the_worker() -> None:
    """Start this program anew with the environment of the engine's own process, which is what is to be measured."""
    from causerie.infer.process import ENVIRONMENT

    if not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**ENVIRONMENT, **os.environ})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and batches, no claim")
    parser.add_argument("--model", type=Path, help="model folder; default: a random model of 6.6M parameters")
    parser.add_argument("--dtype", default="", help="float32 or bfloat16; default: bfloat16 with --model")
    parser.add_argument("--quantize", default="none", choices=["none", "int8", "int8-head"], help="ours only")
    parser.add_argument("--gguf", default="", help="the same model for llama.cpp")
    parser.add_argument("--peer-python", default="", help="a Python with llama-cpp-python")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--batches", default="1,4,8,16,32")
    parser.add_argument("--what", default="decode,prefill")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--long-prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve-llama", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_llama:
        serve_llama(args.gguf, args.threads)
        return
    as_the_worker()
    if args.quick:
        args.rounds, args.batches, args.new, args.long_prompt = 2, "1,4", 16, 64
    args.dtype = args.dtype or ("bfloat16" if args.model else "float32")
    with tempfile.TemporaryDirectory() as place:
        folder = args.model or Path(place)
        if not args.model:
            small_model(folder)
        vocabulary = 300 if not args.model else json.loads((folder / "config.json").read_text())["vocab_size"]
        runs: dict[str, Run] = {"causerie": ours(folder, args, vocabulary)}
        if not args.no_transformers:
            runs["transformers"] = theirs(folder, args, vocabulary)
        if args.gguf and args.peer_python:
            runs["llama.cpp"] = Llama(args, vocabulary)
        else:
            print("llama.cpp: left out, it needs --gguf and --peer-python")
        print(
            f"{folder.name if args.model else 'random 6.6M'}, {args.dtype}, quantize {args.quantize}, {args.threads} threads"
        )
        for run in runs.values():
            run(1, 16, 4)
        for what in args.what.split(","):
            for batch in map(int, args.batches.split(",")):
                measure(what, runs, args, batch)


if __name__ == "__main__":
    main()
