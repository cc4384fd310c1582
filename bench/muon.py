"""Muon against AdamW, and what cheap extras bring, at equal wall-clock time on the same token shards.

Runs by the clock say little on a machine that others use too. So the clock is read once, quietly: first part, seconds per
update of every arm, arms in turn, update by update. Then every arm gets as many updates as the CPU time of `--updates`
updates of Muon buys it (CPU time is the steadier figure, and kinder to AdamW; both are printed). Learning rates are swept on one seed (wider as long as the best is at the edge), then each arm
runs at its best rate on further seeds. Data, their order and the initial weights are those of the seed in every arm, so
differences are paired: given with a 95 % interval (Student). The extras and ways to decay run at Muon's best rate.

    .venv/bin/python bench/muon.py time --shards SHARDS --tokenizer TOKENIZER --journal RUNS.jsonl
    nice -n 15 .venv/bin/python bench/muon.py train (the same; a run that the journal has is not made again)
    .venv/bin/python bench/muon.py report --journal RUNS.jsonl
    .venv/bin/python bench/muon.py all --quick (the same options)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
"""97.5 % quantile of Student's t for so many pairs."""
ARMS: dict[str, dict[str, object]] = {
    "muon": {},
    "adamw": {"optimizer": "adamw"},
    "cautious decay": {"cautious_decay": True},
    "all extras": {"embed_norm": True, "residual_scales": True, "qk_gain": 1.15},
    "no decay": {"weight_decay": 0.0},
    "sharper qk": {"qk_gain": 1.15},
    "norm and scales": {"embed_norm": True, "residual_scales": True},
}
SWEPT = ("muon", "adamw")
EXTRAS = ("embed_norm", "residual_scales", "qk_gain")
SWEEP_SEED = 0


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("part", choices=["time", "train", "report", "all", "one"])
    made.add_argument("--shards", type=Path)
    made.add_argument("--tokenizer", type=Path)
    made.add_argument("--journal", type=Path, required=True, help="JSONL that every result is added to")
    made.add_argument("--updates", type=int, default=200, help="updates of Muon whose time every arm gets")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--depth", type=int, default=3)
    made.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    made.add_argument("--workers", type=int, default=2, help="trainings at once, one thread each")
    made.add_argument("--quick", action="store_true")
    made.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.quick:
        args.updates, args.depth, args.seeds = 20, 2, 2
    if args.part == "one":
        print(json.dumps(train(args, **args.job)))
    if args.part in ("time", "all"):
        time_arms(args)
    if args.part in ("train", "all"):
        train_arms(args)
    if args.part in ("report", "all"):
        report(args)


def journal(args: argparse.Namespace) -> list[dict]:
    return [json.loads(line) for line in args.journal.read_text().splitlines()] if args.journal.exists() else []


def note(args: argparse.Namespace, row: dict) -> None:
    with args.journal.open("a") as file:
        file.write(json.dumps(row) + "\n")


def time_arms(args: argparse.Namespace) -> None:
    """Seconds per update of every arm on all processors, arms taking turns update by update in one process.

    What disturbs a machine only makes updates longer, so their lower fifth is what an undisturbed one takes.
    """
    import torch

    from causerie.model import init_model
    from causerie.train import make_optimizers
    from causerie.train.from_scratch import PackedRows
    from causerie.train.gradients import Gradients
    from causerie.train.pretraining import next_token_loss
    from causerie.train.world import World

    torch.set_num_threads(os.cpu_count())
    arms = {}
    for arm in args.arms:
        config, shape = settings_of(args, arm, seed=0, factor=1.0, updates=100)
        model = init_model(shape, 0)
        extend(model, arm)
        optimizers = make_optimizers(model, config)
        optimizers.set_lr(1e-3)
        gradients = Gradients(model, next_token_loss, optimizers, config, World(), bf16=uses(config))
        arms[arm] = (gradients, [], [])
    batches = PackedRows(args.shards, config)
    for step in range(6 if args.quick else 80):
        micro = batches.micro_batches(step)
        for gradients, seconds, cpu_seconds in arms.values():
            began, cpu_began = time.perf_counter(), time.process_time()
            gradients.compute(micro)
            gradients.optimizers.step()
            seconds.append(time.perf_counter() - began)
            cpu_seconds.append(time.process_time() - cpu_began)
    row = {"what": "time", "threads": torch.get_num_threads(), "depth": args.depth}
    for name, place in (("seconds", 1), ("cpu_seconds", 2)):
        row[name] = {
            arm: round(statistics.quantiles(found[place][2:], n=5, method="inclusive")[0], 5)
            for arm, found in arms.items()
        }
    note(args, row)
    print(row, flush=True)


def uses(config) -> bool:
    import torch

    from causerie.train import uses_bf16

    return uses_bf16(config, torch.device("cpu"))


def train_arms(args: argparse.Namespace) -> None:
    with ThreadPoolExecutor(args.workers) as pool:
        best = sweep(args, [arm for arm in SWEPT if arm in args.arms], pool)
        jobs = [
            {"arm": arm, "seed": seed, "factor": best.get(arm, best["muon"]), "updates": updates_of(args, arm)}
            for arm in args.arms
            for seed in range(1, args.seeds + 1)
        ]
        list(pool.map(lambda job: once(args, job), jobs))


def sweep(args: argparse.Namespace, arms: list[str], pool: ThreadPoolExecutor) -> dict[str, float]:
    """The best factor of the rule's learning rates for each arm: half, once, twice, and on while the best is at an edge."""
    tried: dict[str, dict[float, float]] = {arm: {} for arm in arms}
    wanted = {arm: [0.5, 1.0, 2.0] for arm in arms}
    while any(wanted.values()):
        jobs = [
            {"arm": arm, "seed": SWEEP_SEED, "factor": factor, "updates": updates_of(args, arm)}
            for arm in arms
            for factor in wanted[arm]
        ]
        for job, row in zip(jobs, pool.map(lambda job: once(args, job), jobs), strict=True):
            tried[job["arm"]][job["factor"]] = row["bpb"]
        best = {arm: min(found, key=found.__getitem__) for arm, found in tried.items()}
        wanted = {arm: [f for f in (best[arm] / 2, best[arm] * 2) if f not in tried[arm]] for arm in arms}
    return best


def updates_of(args: argparse.Namespace, arm: str) -> int:
    seconds = next(row["cpu_seconds"] for row in reversed(journal(args)) if row["what"] == "time")
    return round(args.updates * seconds["muon"] / seconds[arm])


def once(args: argparse.Namespace, job: dict) -> dict:
    for row in journal(args):
        if (
            row["what"] == "run"
            and all(row[name] == value for name, value in job.items())
            and row["depth"] == args.depth
        ):
            return row
    row = {"what": "run", "depth": args.depth, **job, **in_process(args, job, threads=1)}
    note(args, row)
    print(f"{job['arm']} x{job['factor']:g} seed {job['seed']}: {row['bpb']:.4f} bits per byte", flush=True)
    return row


def in_process(args: argparse.Namespace, job: dict, threads: int) -> dict:
    command = [sys.executable, __file__, "one", "--job", json.dumps(job), "--depth", str(args.depth)]
    command += ["--shards", str(args.shards), "--tokenizer", str(args.tokenizer), "--journal", str(args.journal)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def settings_of(args: argparse.Namespace, arm: str, seed: int, factor: float, updates: int):
    """The run's settings with learning rates by rule times `factor`, and the model's shape."""
    from causerie.text import load_tokenizer
    from causerie.train import PretrainConfig
    from causerie.train.pretraining import model_shape
    from causerie.train.rules import by_rule, default_lr, default_matrix_lr

    settings = {"optimizer": "muon", **{name: value for name, value in ARMS[arm].items() if name not in EXTRAS}}
    config = PretrainConfig(
        shards=args.shards, tokenizer=args.tokenizer, depth=args.depth, steps=updates, seed=seed, compile="off",
        device="cpu", checkpoint_every=10**6, eval_tokens=131_072, **settings,
    )  # fmt: skip
    shape = model_shape(config, load_tokenizer(args.tokenizer).vocab_size)
    config = by_rule(config, shape)
    rates = {"lr": factor * default_lr(shape.n_embd, config), "matrix_lr": factor * default_matrix_lr(config)}
    return PretrainConfig(**{**vars(config), **rates}), shape


def extend(model, arm: str) -> None:
    from causerie.model import add_extras

    if extras := {name: value for name, value in ARMS[arm].items() if name in EXTRAS}:
        add_extras(model, **extras)


def train(args: argparse.Namespace, arm: str, seed: int, factor: float, updates: int) -> dict:
    from causerie.core import open_artifact, open_run
    from causerie.model import init_model
    from causerie.train import fit
    from causerie.train.pretraining import PackedRows, next_token_loss, validation

    config, shape = settings_of(args, arm, seed, factor, updates)
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):  # noqa: SIM117
        with open_run(Path(place), "bench", "muon", "0" * 64, {}) as run:
            model = init_model(shape, seed)
            extend(model, arm)
            fit(model, next_token_loss, PackedRows(args.shards, config), config, run)
            model.eval()
            val = PackedRows(args.shards, config, "val")
            figures = validation(model, val, config, open_artifact(args.shards))
    tokens = updates * config.batch_size * config.seq_len
    return {"bpb": figures["val_bits_per_byte"], "tokens": tokens, "parameters": shape.n_params}


def report(args: argparse.Namespace) -> None:
    rows = journal(args)
    timed = next(row for row in reversed(rows) if row["what"] == "time")
    runs = [row for row in rows if row["what"] == "run"]
    for name, what in (("seconds", "an update"), ("cpu_seconds", "an update, of CPU time")):
        values = ", ".join(f"{arm} {1000 * value:.1f}" for arm, value in timed[name].items())
        print(f"milliseconds of {what} ({timed['threads']} threads): {values}")
    for arm in SWEPT:
        swept = sorted((r["factor"], r["bpb"]) for r in runs if r["arm"] == arm and r["seed"] == SWEEP_SEED)
        print(f"{arm}, learning rates swept on seed 0: " + ", ".join(f"x{f:g} {bpb:.4f}" for f, bpb in swept))
    found = {arm: {r["seed"]: r for r in runs if r["arm"] == arm and r["seed"] != SWEEP_SEED} for arm in ARMS}
    for arm, by_seed in found.items():
        if not by_seed:
            continue
        values = [by_seed[seed]["bpb"] for seed in sorted(by_seed)]
        one = next(iter(by_seed.values()))
        line = f"{arm:16s} x{one['factor']:g} {one['updates']} updates {one['tokens'] / 1e6:.2f}M tokens:"
        print(f"{line} {statistics.fmean(values):.4f} ({', '.join(f'{v:.4f}' for v in values)})" + against(found, arm))


def against(found: dict[str, dict[int, dict]], arm: str) -> str:
    """The paired difference to plain Muon in words."""
    both = sorted(found["muon"].keys() & found[arm].keys())
    if arm == "muon" or len(both) < 2:
        return ""
    pairs = [found[arm][seed]["bpb"] - found["muon"][seed]["bpb"] for seed in both]
    half = STUDENT[len(pairs)] * statistics.stdev(pairs) / len(pairs) ** 0.5
    mean = statistics.fmean(pairs)
    shown = "worse than" if mean - half > 0 else "better than" if mean + half < 0 else "no difference shown to"
    return f"; minus muon {mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]: {shown} muon"


if __name__ == "__main__":
    main()
