"""Training tokens/s at the fixed CPU shapes: causerie's loop beside transformers' Trainer and nanoGPT, same precision.

Every program trains on the same random tokens with AdamW, in turn, some rounds over; the ratio is that of the medians of
whole updates (forward, backward, clipping, optimiser), the first ones left out. Tokens per CPU second stand beside: on a
machine that others use too, they are the steadier figure. The share of the machine's matmul peak is by the convention
printed; the peak is measured between all updates, in the same process, and its median counts: on shared hosts
it moves by a third within minutes. `--compile own` takes each program as it comes: causerie as it decides for runs of ten
minutes and more (compiled), Trainer not compiled, nanoGPT compiled.

    .venv/bin/python bench/train_speed.py [--shape A B C] [--steps 12] [--rounds 2] [--nanogpt ../peers/nanogpt] [--quick]
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

SHAPES = {  # n_layer, n_embd, n_head, n_kv_head, head_dim, ffn_dim, vocab, seq_len, rows
    "A": (4, 128, 4, 4, 32, 344, 65, 64, 12),  # a gated MLP with as many weights as nanoGPT's of four times the width
    "B": (6, 256, 4, 2, 64, 768, 8192, 256, 32),
    "C": (8, 384, 6, 3, 64, 1024, 16384, 512, 32),
    "D": (8, 512, 8, 4, 64, 1408, 8192, 256, 32),
    "Q": (2, 64, 2, 1, 32, 128, 512, 32, 4),
}
PROGRAMS = ("causerie", "causerie muon", "causerie gpt2", "transformers", "nanogpt")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shape", nargs="+", default=["A", "B"], choices=sorted(SHAPES))
    made.add_argument("--steps", type=int, default=12)
    made.add_argument("--rounds", type=int, default=2)
    made.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    made.add_argument("--compile", choices=["on", "off", "own"], default="on", help="of every program")
    made.add_argument("--nanogpt", type=Path, default=Path(os.environ.get("NANOGPT", "../peers/nanogpt")))
    made.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=PROGRAMS)
    made.add_argument("--threads", type=int, default=os.cpu_count())
    made.add_argument("--quick", action="store_true")
    made.add_argument("--one", help=argparse.SUPPRESS)
    return made


def main() -> None:
    args = parser().parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return
    if args.quick:
        args.shape, args.steps, args.rounds, args.compile = ["Q"], 4, 1, "off"
    if not (args.nanogpt / "model.py").is_file():
        print(f"nanoGPT is not at {args.nanogpt}: left out (give --nanogpt FOLDER)")
        args.programs = [name for name in args.programs if name != "nanogpt"]
    for name in args.shape:
        table(name, args)


def table(shape: str, args: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, float]]] = {program: [] for program in args.programs}
    for _ in range(args.rounds):
        for program in args.programs:
            found[program].append(in_process(program, shape, args))
    layers, width, *_, vocabulary, length, rows = SHAPES[shape]
    print(
        f"\nCPU-{shape}: {layers} layers, width {width}, vocabulary {vocabulary}, {rows} x {length} tokens an update,",
        end=" ",
    )
    print(f"{args.precision}, compile {args.compile}, {args.steps} updates, {args.rounds} rounds")
    print(f"FLOPs: {found['causerie'][0]['convention'] if 'causerie' in found else ''}")
    best = {program: max(row["tokens_per_second"] for row in rows_) for program, rows_ in found.items()}
    mine = [row["tokens_per_second"] for row in found.get("causerie", [])]
    for program, results in found.items():
        speed = statistics.median(row["tokens_per_second"] for row in results)
        share = statistics.median(row["tokens_per_second"] * row["flops_per_token"] / row["peak"] for row in results)
        peak = statistics.median(row["peak"] for row in results)
        ratio = statistics.median(a / b["tokens_per_second"] for a, b in zip(mine, results, strict=True)) if mine else 0
        by_cpu = statistics.median(row["per_cpu_second"] for row in results)
        mine_cpu = [row["per_cpu_second"] for row in found.get("causerie", [])]
        cpu_ratio = statistics.median(mine_cpu) / by_cpu if mine_cpu else 0
        print(
            f"  {program:14s} {speed:9,.0f} tokens/s (best {best[program]:,.0f}), {share:5.1%} of {peak / 1e9:.0f} GFLOP/s,"
            f" peak memory {max(r['megabytes'] for r in results):,.0f} MB, causerie is {ratio:.2f} x;"
            f" per CPU second {by_cpu:,.0f}, causerie {cpu_ratio:.2f} x"
        )


def in_process(program: str, shape: str, args: argparse.Namespace) -> dict[str, float]:
    compiled = ("off" if program == "transformers" else "on") if args.compile == "own" else args.compile
    command = [sys.executable, __file__, "--one", program, "--shape", shape, "--steps", str(args.steps)]
    command += [
        "--threads",
        str(args.threads),
        "--precision",
        args.precision,
        "--compile",
        compiled,
        "--nanogpt",
        str(args.nanogpt),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(args.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{program} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, float]:
    import resource

    from causerie.train import CONVENTION
    from causerie.train.pretraining import flops_per_token

    shape = model_shape(args.shape[0])
    peaks: list[float] = []
    run = {"causerie": ours, "causerie muon": ours, "causerie gpt2": ours, "transformers": trainer, "nanogpt": nanogpt}[
        args.one
    ]
    seconds, cpu_seconds, parameters, loss = run(args, shape, lambda: peaks.append(probe(args.precision)))
    *_, length, rows = SHAPES[args.shape[0]]
    flops = flops_per_token(shape, length)
    if args.one == "causerie gpt2":
        flops = flops_per_token(gpt2_shape(shape, length), length)
    if args.one == "nanogpt":  # its own shape: a plain MLP of four times the width, all heads, learned positions
        flops = 6.0 * (parameters - length * shape.n_embd) + 12.0 * shape.n_layer * shape.n_embd * length
    return {
        "tokens_per_second": rows * length / statistics.median(seconds),
        "per_cpu_second": rows * length / statistics.median(cpu_seconds),
        "flops_per_token": flops,
        "peak": statistics.median(peaks),
        "loss": loss,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "convention": CONVENTION,
    }


def probe(precision: str) -> float:
    """The peak of this moment, in a few hundredths of a second."""
    import torch

    from causerie.train import matmul_peak

    return matmul_peak(torch.device("cpu"), precision == "bf16")


def model_shape(name: str):
    from causerie.model import ModelShape

    layers, width, heads, kv_heads, size, inner, vocabulary, length, _ = SHAPES[name]
    return ModelShape(
        family="qwen3", n_layer=layers, n_embd=width, n_head=heads, n_kv_head=kv_heads, head_dim=size, ffn_dim=inner,
        vocab_size=vocabulary, max_seq_len=max(length, 256),
    )  # fmt: skip


def gpt2_shape(shape, length: int):
    """nanoGPT's own shape in causerie: learned positions, LayerNorm, a plain MLP of four times the width, all heads."""
    from causerie.model import ModelShape

    return ModelShape(
        family="gpt2", n_layer=shape.n_layer, n_embd=shape.n_embd, n_head=shape.n_head, n_kv_head=shape.n_head,
        head_dim=shape.n_embd // shape.n_head, ffn_dim=4 * shape.n_embd, vocab_size=shape.vocab_size, max_seq_len=length,
    )  # fmt: skip


def rows_of(name: str, step: int):
    import torch

    *_, vocabulary, length, rows = SHAPES[name]
    return torch.randint(0, vocabulary, (rows, length + 1), generator=torch.Generator().manual_seed(step))


class Rows:
    """Random tokens, one document a row."""

    fingerprint = "random"

    def __init__(self, name: str) -> None:
        self.name = name

    def micro_batches(self, step: int):
        import torch

        tokens = rows_of(self.name, step)
        rows, length = tokens.shape[0], tokens.shape[1] - 1
        positions = torch.arange(length).expand(rows, -1)
        documents = torch.zeros(rows, length, dtype=torch.int32)
        batch = {"ids": tokens[:, :-1], "targets": tokens[:, 1:], "positions": positions, "doc_ids": documents}
        return [batch]


def ours(args, shape, between):
    from causerie.core import open_run, read_events
    from causerie.model import init_model
    from causerie.train import Callback, TrainSettings, fit
    from causerie.train.pretraining import flops_per_token, next_token_loss

    *_, length, rows = SHAPES[args.shape[0]]
    settings = TrainSettings(
        steps=args.steps, batch_size=rows, seq_len=length, compile=args.compile, precision=args.precision, device="cpu",
        optimizer="muon" if args.one.endswith("muon") else "adamw", checkpoint_every=10**6,
    )  # fmt: skip
    shape = gpt2_shape(shape, length) if args.one.endswith("gpt2") else shape
    model = init_model(shape, 0)
    with tempfile.TemporaryDirectory() as place, open_run(Path(place), "bench", "speed", "0" * 64, {}) as run:
        flops = flops_per_token(shape, length)
        probing = [Callback(lambda *_: between(), "probe", every=1)]
        rows_source = Rows(args.shape[0])
        result = fit(model, next_token_loss, rows_source, settings, run, callbacks=probing, flops_per_token=flops)
        rows_ = [row for row in read_events(run.path) if row["event"] == "step"][2:]
    return [row["step_seconds"] for row in rows_], [row["cpu_seconds"] for row in rows_], 0, result.loss


def trainer(args, shape, between):
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from causerie.model import init_model, save_model

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    *_, _length, rows = SHAPES[args.shape[0]]

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return args.steps * rows

        def __getitem__(self, index):
            step, row = divmod(index, rows)
            if step not in self.held:
                self.held = {step: rows_of(args.shape[0], step)}
            ids = self.held[step][row, :-1]
            return {"input_ids": ids, "labels": ids}

        held = {}  # noqa: RUF012

    marks = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ended = (time.perf_counter(), time.process_time())
            between()
            marks.append((ended, (time.perf_counter(), time.process_time())))

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(init_model(shape, 0), folder, None)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        arguments = TrainingArguments(
            output_dir=place, per_device_train_batch_size=rows, max_steps=args.steps, use_cpu=True, save_strategy="no",
            bf16=args.precision == "bf16", torch_compile=args.compile == "on", optim="adamw_torch_fused", report_to=[],
            logging_strategy="no", disable_tqdm=True, dataloader_num_workers=0, learning_rate=1e-3, dataloader_pin_memory=False,
        )  # fmt: skip
        done = Trainer(model=model, args=arguments, train_dataset=Data(), callbacks=[Clock()]).train()
    pairs = list(itertools.pairwise(marks))[1:]
    wall, cpu = ([after[0][i] - before[1][i] for before, after in pairs] for i in (0, 1))
    return wall, cpu, 0, done.training_loss


def nanogpt(args, shape, between):
    import torch

    sys.path.insert(0, str(args.nanogpt))
    from contextlib import redirect_stdout

    from model import GPT, GPTConfig

    *_, length, _rows = SHAPES[args.shape[0]]
    config = GPTConfig(
        block_size=length, vocab_size=shape.vocab_size, n_layer=shape.n_layer, n_head=shape.n_head, n_embd=shape.n_embd,
        dropout=0.0, bias=False,
    )  # fmt: skip
    with redirect_stdout(sys.stderr):
        model = GPT(config)
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    run = torch.compile(model) if args.compile == "on" else model
    seconds, cpu_seconds, loss = [], [], None
    for step in range(args.steps):
        began, cpu_began = time.perf_counter(), time.process_time()
        tokens = rows_of(args.shape[0], step)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            _, loss = run(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = loss.item()
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu_began)
        between()
    return seconds[2:], cpu_seconds[2:], sum(p.numel() for p in model.parameters()), loss


if __name__ == "__main__":
    main()
