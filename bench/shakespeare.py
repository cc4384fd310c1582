"""Seconds to nanoGPT's README CPU result on Shakespeare's characters: nanoGPT's own train.py, then causerie on the same text.

nanoGPT runs unmodified with its README's CPU flags (4 layers, width 128, batches of 12 x 64, 2,000 iterations, eager,
float32; 1.88 is the validation loss its README gives). Its checkpoint is then measured on the whole validation text in
rows of 64, nats per character; the target is the lower of that and 1.88. causerie trains a model of the same layers, width
and row length, float32 and eager too, and stops at the first evaluation, measured the same way, at or below the target.
What differs: the block (RMSNorm, rotary positions, normed queries and keys, a gated MLP of as many weights), Muon for the
matrices, 24 rows an update, the rates. Both times are of the whole program without imports, evaluations included.

    .venv/bin/python bench/shakespeare.py --nanogpt ../peers/nanogpt --text ../peers/tinyshakespeare/input.txt [--quick]
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

from causerie.core import open_run
from causerie.model import ModelShape, causal_attend, chunked_loss, init_model
from causerie.train import Callback, TrainSettings, fit
from causerie.train.pretraining import next_token_loss

LENGTH, ROWS, EVAL_ROWS = 64, 24, 256
README_LOSS = 1.88


class Reached(Exception):
    """The target was reached."""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--nanogpt", type=Path, default=Path(os.environ.get("NANOGPT", "../peers/nanogpt")))
    made.add_argument("--text", type=Path, default=Path("../peers/tinyshakespeare/input.txt"))
    made.add_argument("--iterations", type=int, default=2000)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of causerie's runs")
    made.add_argument("--quick", action="store_true")
    args = made.parse_args()
    for needed in (args.nanogpt / "train.py", args.text):
        if not needed.exists():
            sys.exit(f"left out: {needed} is not there")
    if args.quick:
        args.iterations = 40
    ids, vocabulary = characters(args.text)
    theirs, sampled, whole = nanogpt(args, ids, vocabulary)
    print(f"nanoGPT: {args.iterations} iterations, {whole:.4f} on the whole validation text (its own sample: ", end="")
    print(f"{sampled:.4f}; its README: {README_LOSS}) in {theirs:.1f} s", flush=True)
    target = whole if args.quick else min(whole, README_LOSS)
    ratios = []
    for seed in args.seeds:
        mine, loss, steps = ours(ids, len(vocabulary), target, limit=0.45 * theirs, seed=seed)
        reached = f"in {mine:.1f} s" if loss <= target else f"NOT reached in {mine:.1f} s"
        print(f"causerie, seed {seed}: {loss:.4f} after {steps} updates of {ROWS} x {LENGTH}, {reached}", flush=True)
        ratios.append(mine / theirs)
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"causerie's time / nanoGPT's, by seed: {shown} ({torch.get_num_threads()} threads)")


def characters(path: Path) -> tuple[np.ndarray, list[str]]:
    text = path.read_text(encoding="utf-8")
    vocabulary = sorted(set(text))
    index = {c: i for i, c in enumerate(vocabulary)}
    return np.array([index[c] for c in text], dtype=np.uint16), vocabulary


def nanogpt(args: argparse.Namespace, ids: np.ndarray, vocabulary: list[str]) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "nanogpt"
        shutil.copytree(args.nanogpt, copy, ignore=shutil.ignore_patterns(".git", "assets"))
        data = copy / "data" / "shakespeare_char"
        data.mkdir(parents=True, exist_ok=True)
        split = int(0.9 * len(ids))
        ids[:split].tofile(data / "train.bin")
        ids[split:].tofile(data / "val.bin")
        meta = {"vocab_size": len(vocabulary), "itos": dict(enumerate(vocabulary)), "stoi": {}}
        (data / "meta.pkl").write_bytes(pickle.dumps(meta))
        flags = [
            "--device=cpu",
            "--compile=False",
            "--eval_iters=20",
            "--log_interval=100",
            "--block_size=64",
            "--batch_size=12",
        ]
        flags += ["--n_layer=4", "--n_head=4", "--n_embd=128", f"--max_iters={args.iterations}", "--dropout=0.0"]
        flags += [f"--lr_decay_iters={args.iterations}", f"--eval_interval={max(1, args.iterations // 8)}"]
        command = [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py", *flags]
        process = subprocess.Popen(command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        began, losses, lines = 0.0, [], []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("tokens per iteration"):
                began = time.perf_counter()  # imports are done
            if found := re.match(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", line):
                losses.append(float(found[1]))
        if process.wait() or not losses:
            sys.exit("nanoGPT failed:\n" + "".join(lines[-20:]))
        seconds = time.perf_counter() - began
        return seconds, losses[-1], whole_loss_of_nanogpt(copy, ids[split:])


def whole_loss_of_nanogpt(copy: Path, val: np.ndarray) -> float:
    """Nats per character of the checkpoint with the lowest sampled loss, the one that its program keeps."""
    sys.path.insert(0, str(copy))
    from model import GPT, GPTConfig

    saved = torch.load(next(copy.glob("out*/ckpt.pt")), weights_only=True)
    with redirect_stdout(sys.stderr):
        model = GPT(GPTConfig(**saved["model_args"]))
    model.load_state_dict(saved["model"])
    model.eval()
    seen, wanted = rows_of(val)
    total = 0.0
    with torch.no_grad():
        for part in torch.arange(len(seen)).split(EVAL_ROWS):
            total += float(model(seen[part], wanted[part])[1]) * wanted[part].numel()
    return total / wanted.numel()


def rows_of(val: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The validation text in rows, and what follows each character."""
    text = torch.from_numpy(val.astype(np.int64))
    count = (len(text) - 1) // LENGTH
    return text[: count * LENGTH].view(count, LENGTH), text[1 : count * LENGTH + 1].view(count, LENGTH)


class Rows:
    """Random windows of the training text."""

    fingerprint = "characters"

    def __init__(self, ids: np.ndarray, seed: int) -> None:
        self.seed = seed
        self.ids = torch.from_numpy(ids.astype(np.int64))
        self.positions = torch.arange(LENGTH).expand(ROWS, -1)
        self.documents = torch.zeros(ROWS, LENGTH, dtype=torch.int32)

    def micro_batches(self, step: int):
        dice = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        starts = torch.randint(0, len(self.ids) - LENGTH - 1, (ROWS, 1), generator=dice)
        tokens = self.ids[starts + torch.arange(LENGTH + 1)]
        return [
            {"ids": tokens[:, :-1], "targets": tokens[:, 1:], "positions": self.positions, "doc_ids": self.documents}
        ]


def ours(ids: np.ndarray, vocabulary: int, target: float, limit: float, seed: int) -> tuple[float, float, int]:
    shape = ModelShape(
        family="qwen3", n_layer=4, n_embd=128, n_head=4, n_kv_head=4, head_dim=32, ffn_dim=344, vocab_size=vocabulary
    )
    split = int(0.9 * len(ids))
    seen, wanted = rows_of(ids[split:])
    best = {"loss": float("inf"), "step": 0, "seconds": 0.0}
    settings = TrainSettings(
        minutes=max(limit, 3) / 60, batch_size=ROWS, seq_len=LENGTH, compile="off", precision="fp32", device="cpu",
        schedule="wsd", decay_fraction=0.7, matrix_lr=0.02, lr=6e-3, warmup=20, eval_every=50, checkpoint_every=10**6, seed=seed,
    )  # fmt: skip
    model = init_model(shape, seed)
    began = time.perf_counter()

    def evaluate(model, step):
        total = 0.0
        for start in range(0, len(seen), EVAL_ROWS):
            part = slice(start, start + EVAL_ROWS)
            hidden = model(seen[part], attend=causal_attend(shape))
            total += float(chunked_loss(model, hidden.flatten(0, 1), wanted[part].flatten()).sum())
        loss = total / wanted.numel()
        best.update(loss=loss, step=step, seconds=time.perf_counter() - began)
        if loss <= target:
            raise Reached
        return {"loss": loss}

    with tempfile.TemporaryDirectory() as place:
        try:
            with open_run(Path(place), "bench", "shakespeare", "0" * 64, {}) as run:
                fit(
                    model,
                    next_token_loss,
                    Rows(ids[:split], seed),
                    settings,
                    run,
                    callbacks=[Callback(evaluate, every=settings.eval_every)],
                )
        except Reached:
            pass
    return best["seconds"], best["loss"], int(best["step"])


if __name__ == "__main__":
    main()
