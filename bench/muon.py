"""Muon against AdamW at equal wall-clock time on the same token shards: learning rates swept, three seeds, intervals.

Each optimiser gets the same seconds a run and the same schedule by time. First the sweep, on one seed: AdamW at 0.5, 1
and 2 times its rule's rate, Muon likewise; then the best of each on `--seeds` seeds. The difference is given with a 95 %
interval (Student, paired by seed). `--cautious` adds Muon with cautious weight decay.

    .venv/bin/python bench/muon.py --shards SHARDS --tokenizer TOKENIZER [--seconds 30] [--seeds 3] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path

import torch

from causerie.core import open_artifact, open_run
from causerie.model import init_model
from causerie.text import load_tokenizer
from causerie.train import PretrainConfig, fit
from causerie.train.pretraining import PackedRows, model_shape, next_token_loss, validation
from causerie.train.rules import by_rule, default_lr, default_matrix_lr

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""95 % quantile of Student's t for so many pairs."""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shards", type=Path, required=True)
    made.add_argument("--tokenizer", type=Path, required=True)
    made.add_argument("--seconds", type=float, default=30)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--depth", type=int, default=4)
    made.add_argument("--cautious", action="store_true")
    made.add_argument("--quick", action="store_true")
    args = made.parse_args()
    if args.quick:
        args.seconds, args.seeds, args.depth = 3, 2, 2
    arms = {"adamw": {"optimizer": "adamw"}, "muon": {"optimizer": "muon"}}
    if args.cautious:
        arms["muon cautious"] = {"optimizer": "muon", "cautious_decay": True}
    found = {}
    for arm, settings in arms.items():
        sweep = {factor: run(args, 0, factor, settings) for factor in (0.5, 1.0, 2.0)}
        best = min(sweep, key=lambda factor: sweep[factor])
        print(f"{arm}: sweep " + ", ".join(f"x{factor:g} {bpb:.4f}" for factor, bpb in sweep.items()), flush=True)
        found[arm] = [sweep[best], *(run(args, seed, best, settings) for seed in range(1, args.seeds))]
        values = ", ".join(f"{bpb:.4f}" for bpb in found[arm])
        print(f"{arm}: x{best:g}, bits per byte {statistics.fmean(found[arm]):.4f} ({values})", flush=True)
    for arm in list(found)[1:]:
        pairs = [a - b for a, b in zip(found["adamw"], found[arm], strict=True)]
        half = STUDENT[len(pairs)] * statistics.stdev(pairs) / len(pairs) ** 0.5
        mean = statistics.fmean(pairs)
        print(f"adamw - {arm}: {mean:+.4f} bits per byte, 95 % interval {mean - half:+.4f} to {mean + half:+.4f}")
    print(f"depth {args.depth}, {args.seconds:g} s a run, {args.seeds} seeds, {torch.get_num_threads()} threads")


def run(args: argparse.Namespace, seed: int, factor: float, more: dict[str, object]) -> float:
    config = PretrainConfig(
        shards=args.shards, tokenizer=args.tokenizer, depth=args.depth, minutes=args.seconds / 60, seed=seed, compile="off",
        device="cpu", checkpoint_every=10**6, **more,
    )  # fmt: skip
    shape = model_shape(config, load_tokenizer(args.tokenizer).vocab_size)
    config = by_rule(config, shape)
    rates = {"lr": factor * default_lr(shape.n_embd, config), "matrix_lr": factor * default_matrix_lr(config)}
    config = PretrainConfig(**{**vars(config), **rates})
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):  # noqa: SIM117
        with open_run(Path(place), "bench", "muon", "0" * 64, {}) as opened:
            model = init_model(shape, seed)
            fit(model, next_token_loss, PackedRows(args.shards, config), config, opened)
            model.eval()
            val = PackedRows(args.shards, config, "val")
            return validation(model, val, config, open_artifact(args.shards))["val_bits_per_byte"]


if __name__ == "__main__":
    main()
