"""GRPO on a task whose answers can be checked: how far does a small model get from where fine-tuning left it?

A model of about a million weights is made from nothing, taught to name the largest of four digits for a while (until it
gets part of them right), and then trained on nothing but the reward "the number is right". Questions of the training
and of the test are different.

    .venv/bin/python bench/grpo.py [--quick] [--variant dapo] [--steps 150]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from causerie.align import GrpoConfig, grpo
from causerie.core import read_events, write_jsonl
from causerie.model import ModelShape, init_model, save_model
from causerie.text import train_bpe
from causerie.train import SftConfig, sft

SHAPE = {"family": "qwen3", "n_layer": 4, "n_embd": 128, "n_head": 4, "n_kv_head": 2, "head_dim": 32, "ffn_dim": 384}


def tasks(seed: int, count: int) -> list[dict[str, str]]:
    """Which of four digits is the largest? So many different questions."""
    rng = random.Random(seed)
    numbers = rng.sample(range(10_000), count)
    return [{"prompt": "max " + " ".join(f"{n:04d}"), "answer": max(f"{n:04d}")} for n in numbers]


def main() -> None:
    """Make, teach, reward, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--variant", default="dapo", choices=("grpo", "dr_grpo", "dapo"))
    parser.add_argument("--sft-steps", type=int, default=48)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path)
    given = parser.parse_args()
    if given.quick:
        given.sft_steps, given.steps = 10, 2
    with tempfile.TemporaryDirectory() as place:
        run(given, given.workspace or Path(place))


def run(given: argparse.Namespace, workspace: Path) -> None:
    """One run in a workspace."""
    rows = tasks(given.seed, 2300)
    test, train = rows[:300], rows[300:]
    folder = workspace / "base"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_bpe(["user assistant system max"] * 9 + [f"{i}" for i in range(10)], 290)
    model = init_model(ModelShape(**SHAPE, vocab_size=tokenizer.vocab_size, max_seq_len=128), given.seed)
    tokenizer.save(folder)
    save_model(model, folder, folder)
    talks = [
        {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["answer"]}]}
        for r in train
    ]
    write_jsonl(workspace / "talks.jsonl", talks)
    write_jsonl(workspace / "train.jsonl", train)
    write_jsonl(workspace / "test.jsonl", test)
    taught = sft(
        SftConfig(
            model=folder, data=(workspace / "talks.jsonl",), steps=given.sft_steps, batch_size=4, seq_len=256, lr=2e-3,
            precision="fp32", compile="off", seed=given.seed,
        ),
        workspace,
    )  # fmt: skip
    began = time.monotonic()
    made = grpo(
        GrpoConfig(
            model=taught.path, prompts=workspace / "train.jsonl", heldout=workspace / "test.jsonl", steps=given.steps,
            batch_size=32, group_size=8, max_tokens=6, variant=given.variant, lr=given.lr, measure_rows=300, seq_len=64,
            eval_every=max(1, given.steps // 5), seed=given.seed, warmup=5,
        ),
        workspace,
    )  # fmt: skip
    metrics = made.manifest.metrics
    (folder,) = (workspace / "runs").glob("grpo-*")
    events = list(read_events(folder))
    curve = [(e["step"], round(e["solved"], 3)) for e in events if e["event"] == "preference"]
    paid = [e["reward"] for e in events if e["event"] == "rollout"]
    tenth = max(1, len(paid) // 10)
    sampling = sum(e["sampling_seconds"] for e in events if e["event"] == "rollout")
    result = {
        "weights": model.shape.n_params,
        "questions_trained_on": len(train),
        "questions_tested": len(test),
        "solved_before": metrics["before"]["solved"],
        "solved_after": metrics["after"]["solved"],
        "plus_minus": round(metrics["after"]["solved_error"], 4),
        "curve": curve,
        "reward_curve": [round(sum(paid[i : i + tenth]) / tenth, 3) for i in range(0, len(paid), tenth)],
        "updates": given.steps,
        "answers": given.steps * 32 * 8,
        "largest_log_prob_gap": metrics["rows"]["log_prob_gap"],
        "seconds": round(time.monotonic() - began, 1),
        "sampling_seconds": round(sampling, 1),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
