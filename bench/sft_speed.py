"""LoRA SFT of the 270M starter: causerie beside peft with transformers' default loss, bf16 base, rank 16, all linear layers.

Two tables. "Equal rows": the same 8 rows of 256 random tokens an update, the second half an answer; tokens/s count all
tokens of the rows. "Real rows" (with `--data`, conversations of Dolly by default): the same conversations as each program's
users train on them, tokens/s count the conversations' own tokens: causerie packs them into rows of 512, two an update;
transformers' collator pads 2 of them to the longest (`--padded`; 8 needed more than 20 GB, 4 more than a busy machine had). causerie runs as written and compiled (as `--compile auto` does for
runs of ten minutes and more; the compilation is not counted), peft as it comes, uncompiled. Memory is the peak resident
size of each process. Medians of the updates after the first two.

    .venv/bin/python bench/sft_speed.py --model WORKSPACE/model/gemma-3-270m-XXXXXXXX [--steps 5] [--data FILE] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LENGTH, ROWS, RANK = 256, 8, 16
PACKED_LENGTH, PACKED_ROWS, PADDED_ROWS = 512, 2, 2
PROGRAMS = ("causerie", "causerie compiled", "peft")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pack = Path(os.environ.get("CAUSERIE_DATA", "../shared/data"))
    made.add_argument("--model", type=Path, default=Path(os.environ.get("CAUSERIE_STARTER", "workspace/starter")))
    made.add_argument("--steps", type=int, default=5)
    made.add_argument("--rows", type=int, default=ROWS)
    made.add_argument("--padded", type=int, default=PADDED_ROWS, help="conversations an update of peft, real rows")
    made.add_argument("--data", type=Path, default=pack / "sft" / "dolly_3k.json", help="Alpaca-style JSON")
    made.add_argument("--tables", nargs="+", choices=["equal", "real"], default=["equal", "real"])
    made.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    made.add_argument("--quick", action="store_true")
    made.add_argument("--one", help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return
    if args.quick:
        args.steps, args.rows, args.programs = 3, 2, ["causerie", "peft"]
    if not (args.model / "config.json").is_file():
        sys.exit(f"left out: no model at {args.model} (causerie starter makes one; give --model)")
    for name in args.tables:
        if name == "real" and not args.data.is_file():
            print(f"real rows left out: no {args.data} (give --data)")
            continue
        table(name, args)


def table(name: str, args: argparse.Namespace) -> None:
    print(f"{name} rows")
    found = {program: in_process(program, name, args) for program in args.programs}
    theirs = found.get("peft")
    for program, row in found.items():
        line = (
            f"  {program:17s} {row['tokens_per_second']:6.0f} tokens/s, {row['per_cpu_second']:5.0f} per CPU second, "
        )
        line += f"{row['megabytes']:6,.0f} MB at the peak"
        if theirs and program != "peft":
            line += f"; {row['tokens_per_second'] / theirs['tokens_per_second']:.2f} x peft's speed (goal 2), "
            line += f"{row['per_cpu_second'] / theirs['per_cpu_second']:.2f} x by CPU time, "
            line += f"{row['megabytes'] / theirs['megabytes']:.2f} of its memory (goal 0.5)"
        print(line, flush=True)


def in_process(program: str, name: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", program, "--model", str(args.model), "--steps", str(args.steps)]
    command += ["--rows", str(args.rows), "--tables", name, "--data", str(args.data), "--padded", str(args.padded)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{program} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, float]:
    import resource

    import torch

    torch.manual_seed(0)
    updates = (peft if args.one == "peft" else ours)(args)[2:]
    return {
        "tokens_per_second": statistics.median(tokens / seconds for tokens, seconds, _ in updates),
        "per_cpu_second": statistics.median(tokens / cpu for tokens, _, cpu in updates),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def random_rows(step: int, rows: int):
    import torch

    tokens = torch.randint(1000, 30000, (rows, LENGTH + 1), generator=torch.Generator().manual_seed(step))
    trained = torch.zeros(rows, LENGTH + 1, dtype=torch.bool)
    trained[:, LENGTH // 2 :] = True
    return tokens, trained


def conversations(args: argparse.Namespace, count: int) -> list:
    """Rows of ids and masks, rendered with the model's chat format."""
    from causerie.text import load_chat_format
    from causerie.train.chat_rows import read_rows

    items = json.loads(args.data.read_text(encoding="utf-8"))[:count]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for item in items:
                asked = "\n\n".join(filter(None, (item["instruction"], item["input"])))
                messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": item["output"]}]
                file.write(json.dumps({"messages": messages}) + "\n")
        return read_rows([path], load_chat_format(args.model), PACKED_LENGTH).rows


class RandomRows:
    fingerprint = "random"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def micro_batches(self, step: int):
        import torch

        tokens, trained = random_rows(step, self.rows)
        where = trained[:, 1:].flatten().nonzero().flatten()
        return [
            {
                "ids": tokens[:, :-1],
                "positions": torch.arange(LENGTH).expand(self.rows, -1),
                "doc_ids": torch.zeros(self.rows, LENGTH, dtype=torch.int32),
                "where": where,
                "targets": tokens[:, 1:].flatten()[where],
            }
        ]


def ours(args: argparse.Namespace) -> list[tuple[float, float, float]]:
    """(tokens, seconds, CPU seconds) of every update."""
    import torch

    from causerie.core import open_run, read_events
    from causerie.model import add_lora, load_model
    from causerie.train import SftConfig, TrainSettings, fit
    from causerie.train.finetuning import PackedConversations, answer_loss

    real = args.tables == ["real"]
    rows, length = (PACKED_ROWS, PACKED_LENGTH) if real else (args.rows, LENGTH)
    model = load_model(args.model, dtype=torch.bfloat16)
    add_lora(model, RANK, 2.0 * RANK)
    common = {
        "steps": args.steps, "batch_size": rows, "seq_len": length, "optimizer": "adamw", "lr": 1e-4, "precision": "bf16",
        "compile": "on" if args.one.endswith("compiled") else "off", "device": "cpu", "checkpoint_every": 10**6,
        "weight_decay": 0.0,
    }  # fmt: skip
    batches = RandomRows(rows)
    if real:
        config = SftConfig(model=args.model, data=(args.data,), **common)
        batches = PackedConversations(conversations(args, 12 * rows * args.steps), config)
    settings = TrainSettings(**common)
    with tempfile.TemporaryDirectory() as place, open_run(Path(place), "bench", "sft", "0" * 64, {}) as run:
        fit(model, answer_loss, batches, settings, run)
        done = [row for row in read_events(run.path) if row["event"] == "step"]
    totals = [0, *(row["tokens"] for row in done)]
    seen = [after - before for before, after in itertools.pairwise(totals)]
    return [(tokens, row["step_seconds"], row["cpu_seconds"]) for tokens, row in zip(seen, done, strict=True)]


def peft(args: argparse.Namespace) -> list[tuple[float, float, float]]:
    """(tokens, seconds, CPU seconds) of every update."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM"))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    updates = []
    batches = None
    if args.tables == ["real"]:
        batches = padded(conversations(args, args.padded * args.steps), args.padded)
    for step in range(args.steps):
        if batches is None:
            ids, counted = random_rows(step, args.rows)
            batch = {"input_ids": ids[:, :-1], "labels": torch.where(counted, ids, -100)[:, :-1]}
            tokens = args.rows * LENGTH
        else:
            batch = batches[step]
            tokens = int(batch["attention_mask"].sum())
        began, cpu_began = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        updates.append((tokens, time.perf_counter() - began, time.process_time() - cpu_began))
    return updates


def padded(rows: list, size: int) -> list[dict]:
    """Batches as transformers' collator for fine-tuning makes them: padded to the longest, questions not counted."""
    import torch

    batches = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        longest = max(len(row.ids) for row in part)
        batch = {
            "input_ids": torch.zeros(len(part), longest, dtype=torch.long),
            "attention_mask": torch.zeros(len(part), longest, dtype=torch.long),
            "labels": torch.full((len(part), longest), -100),
        }
        for line, row in enumerate(part):
            ids, mask = torch.tensor(row.ids), torch.tensor(row.mask).bool()
            batch["input_ids"][line, : len(ids)] = ids
            batch["attention_mask"][line, : len(ids)] = 1
            batch["labels"][line, : len(ids)] = torch.where(mask, ids, -100)
        batches.append(batch)
    return batches


if __name__ == "__main__":
    main()
