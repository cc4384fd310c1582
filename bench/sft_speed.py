"""LoRA SFT of the 270M starter: causerie beside peft with transformers' default loss, same rows, bf16 base, rank 16.

Rows of 256 tokens whose second half is an answer (random tokens: speed does not depend on them), 8 an update, adapters on
all linear layers. "Seen" tokens/s count all tokens of the rows. Memory is the peak resident size of each process.

    .venv/bin/python bench/sft_speed.py --model WORKSPACE/model/gemma-3-270m-XXXXXXXX [--steps 3] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LENGTH, ROWS, RANK = 256, 8, 16


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", type=Path, default=Path(os.environ.get("CAUSERIE_STARTER", "workspace/starter")))
    made.add_argument("--steps", type=int, default=3)
    made.add_argument("--rows", type=int, default=ROWS)
    made.add_argument("--quick", action="store_true")
    made.add_argument("--one", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return
    if args.quick:
        args.steps, args.rows = 2, 2
    if not (args.model / "config.json").is_file():
        sys.exit(f"left out: no model at {args.model} (causerie starter makes one; give --model)")
    found = {program: in_process(program, args) for program in ("causerie", "peft")}
    for program, row in found.items():
        print(
            f"{program:9s} {row['tokens_per_second']:7.0f} tokens/s, {row['per_cpu_second']:.0f} per CPU second, {row['megabytes']:,.0f} MB at the peak"
        )
    mine, theirs = found["causerie"], found["peft"]
    print(
        f"causerie / peft: {mine['tokens_per_second'] / theirs['tokens_per_second']:.2f} x the speed (goal 2), ", end=""
    )
    print(f"{mine['per_cpu_second'] / theirs['per_cpu_second']:.2f} x by CPU time, ", end="")
    print(f"{mine['megabytes'] / theirs['megabytes']:.2f} of the memory (goal 0.5)")


def in_process(program: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", program, "--model", str(args.model), "--steps", str(args.steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run(
        [*command, "--rows", str(args.rows)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        sys.exit(f"{program} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows_of(step: int, rows: int):
    import torch

    tokens = torch.randint(1000, 30000, (rows, LENGTH + 1), generator=torch.Generator().manual_seed(step))
    trained = torch.zeros(rows, LENGTH + 1, dtype=torch.bool)
    trained[:, LENGTH // 2 :] = True
    return tokens, trained


def measure(args: argparse.Namespace) -> dict[str, float]:
    import resource

    import torch

    torch.manual_seed(0)
    seconds, cpu_seconds = {"causerie": ours, "peft": peft}[args.one](args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tokens = args.rows * LENGTH
    return {
        "tokens_per_second": tokens / statistics.median(seconds[1:]),
        "per_cpu_second": tokens / statistics.median(cpu_seconds[1:]),
        "megabytes": peak,
    }


def ours(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    import torch

    from causerie.core import open_run, read_events
    from causerie.model import add_lora, load_model
    from causerie.train import TrainSettings, fit
    from causerie.train.finetuning import answer_loss

    class Rows:
        fingerprint = "random"

        def micro_batches(self, step: int):
            tokens, trained = rows_of(step, args.rows)
            where = trained[:, 1:].flatten().nonzero().flatten()
            return [
                {
                    "ids": tokens[:, :-1],
                    "positions": torch.arange(LENGTH).expand(args.rows, -1),
                    "doc_ids": torch.zeros(args.rows, LENGTH, dtype=torch.int32),
                    "where": where,
                    "targets": tokens[:, 1:].flatten()[where],
                }
            ]

    model = load_model(args.model, dtype=torch.bfloat16)
    add_lora(model, RANK, 2.0 * RANK)
    settings = TrainSettings(
        steps=args.steps, batch_size=args.rows, seq_len=LENGTH, optimizer="adamw", lr=1e-4, compile="off", precision="bf16",
        device="cpu", checkpoint_every=10**6, weight_decay=0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place, open_run(Path(place), "bench", "sft", "0" * 64, {}) as run:
        fit(model, answer_loss, Rows(), settings, run)
        rows = [row for row in read_events(run.path) if row["event"] == "step"]
        return [row["step_seconds"] for row in rows], [row["cpu_seconds"] for row in rows]


def peft(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM"))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    seconds, cpu_seconds = [], []
    for step in range(args.steps):
        began, cpu_began = time.perf_counter(), time.process_time()
        tokens, counted = rows_of(step, args.rows)
        labels = torch.where(counted, tokens, -100)[:, :-1]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=tokens[:, :-1], labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu_began)
    return seconds, cpu_seconds


if __name__ == "__main__":
    main()
