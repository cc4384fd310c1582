"""Tokens/s and share of the peak (MFU) on one GPU at the fixed shapes GPU-S, GPU-M and GPU-L: one call, under ten minutes.

bf16, compiled, PyTorch's own attention (no flash-attn package), AdamW, random tokens. The first ten updates are left out,
the median of the rest counts. On a CPU (`--device cpu --quick`) only the code path is run, and no figure is given.

    python bench/gpu_train.py [--shape S M L] [--steps 60] [--micro 0] [--device cuda] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from causerie.core import open_run, read_events
from causerie.model import ModelShape, init_model
from causerie.train import CONVENTION, TrainSettings, fit, matmul_peak
from causerie.train.pretraining import flops_per_token, next_token_loss

SHAPES = {  # n_layer, n_embd, n_head, n_kv_head, head_dim, ffn_dim, vocab, seq_len, rows, tied; goal of MFU
    "S": (12, 768, 6, 6, 128, 2048, 32768, 2048, 64, False, 0.40),
    "M": (24, 1024, 8, 4, 128, 2816, 32768, 2048, 32, False, 0.45),
    "L": (28, 1024, 16, 8, 128, 3072, 32768, 2048, 16, True, 0.50),
    "XL": (22, 2048, 16, 4, 128, 5632, 32768, 2048, 8, False, 0.50),
    "Q": (2, 64, 2, 1, 32, 128, 512, 64, 4, True, 0.0),
}
LEFT_OUT = 10


class Rows:
    """Random tokens, one document a row."""

    fingerprint = "random"

    def __init__(self, vocabulary: int, length: int, rows: int, micro: int) -> None:
        self.vocabulary, self.length, self.rows, self.micro = vocabulary, length, rows, micro or rows

    def micro_batches(self, step: int):
        tokens = torch.randint(
            0, self.vocabulary, (self.rows, self.length + 1), generator=torch.Generator().manual_seed(step)
        )
        positions = torch.arange(self.length).expand(self.micro, -1)
        documents = torch.zeros(self.micro, self.length, dtype=torch.int32)
        return [
            {"ids": part[:, :-1], "targets": part[:, 1:], "positions": positions, "doc_ids": documents}
            for part in tokens.split(self.micro)
        ]


def causal_loss(model, batch):
    """`next_token_loss` with one document a row: no mask, so the kernels' causal path runs."""
    from causerie.model import causal_attend, summed_loss
    from causerie.train import LossParts

    hidden = model(batch["ids"], positions=batch["positions"], attend=causal_attend(model.shape))
    return LossParts(summed_loss(model, hidden.flatten(0, 1), batch["targets"].flatten()), batch["targets"].numel())


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shape", nargs="+", default=["S", "M", "L"], choices=sorted(SHAPES))
    made.add_argument("--steps", type=int, default=60)
    made.add_argument("--micro", type=int, default=0, help="rows a pass; 0 means all")
    made.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    made.add_argument("--documents", action="store_true", help="with document masks, as pretraining has them")
    made.add_argument("--quick", action="store_true")
    args = made.parse_args()
    if args.quick:
        args.shape, args.steps = ["Q"], 3
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("left out: no CUDA device")
    rows = [measure(name, args) for name in args.shape]
    if args.device == "cpu":
        print("the code path runs; no figure is given for a CPU")
        return
    device = torch.device("cuda")
    peak = matmul_peak(device, bf16=True)
    print(
        f"{torch.cuda.get_device_name()}, peak {peak / 1e12:.1f} TFLOP/s bf16 dense (data sheet), FLOPs: {CONVENTION}"
    )
    print("shape | parameters | tokens/s | TFLOP/s | MFU | goal | GB | loss")
    for name, row in zip(args.shape, rows, strict=True):
        print(
            f"GPU-{name} | {row['parameters'] / 1e6:.0f}M | {row['speed']:,.0f} | {row['flops'] / 1e12:.0f} | {row['flops'] / peak:.1%} |"
            f" {SHAPES[name][-1]:.0%} | {row['gigabytes']:.0f} | {row['loss']:.3f}"
        )


def measure(name: str, args: argparse.Namespace) -> dict[str, float]:
    layers, width, heads, kv_heads, size, inner, vocabulary, length, rows, tied, _ = SHAPES[name]
    shape = ModelShape(
        family="qwen3", n_layer=layers, n_embd=width, n_head=heads, n_kv_head=kv_heads, head_dim=size, ffn_dim=inner,
        vocab_size=vocabulary, tie_embeddings=tied, max_seq_len=length,
    )  # fmt: skip
    settings = TrainSettings(
        steps=args.steps, batch_size=rows, seq_len=length, compile="off" if args.device == "cpu" else "on", precision="bf16",
        optimizer=args.optimizer, device=args.device, checkpoint_every=10**6,
    )  # fmt: skip
    flops = flops_per_token(shape, length)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, open_run(Path(place), "bench", "gpu", "0" * 64, {}) as run:
        data = Rows(vocabulary, length, rows, args.micro)
        objective = next_token_loss if args.documents else causal_loss
        result = fit(init_model(shape, 0), objective, data, settings, run, flops_per_token=flops)
        events = [row for row in read_events(run.path) if row["event"] == "step"]
    seconds = statistics.median([row["step_seconds"] for row in events][LEFT_OUT:] or [1.0])
    memory = torch.cuda.max_memory_allocated() / 2**30 if args.device == "cuda" else 0.0
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch._dynamo.reset()
    print(f"GPU-{name}: {time.perf_counter() - began:.0f} s in all", flush=True)
    speed = rows * length / seconds
    return {
        "speed": speed,
        "flops": speed * flops,
        "parameters": shape.n_params,
        "gigabytes": memory,
        "loss": result.loss,
    }


if __name__ == "__main__":
    main()
