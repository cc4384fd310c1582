"""GRPO on a task whose answers can be checked: how far does a small model get from where fine-tuning left it?

A model of a few million weights at most is made from nothing, taught for a while by examples (until it gets part of
them right), and then trained on nothing but the reward "the number is right". Questions of the training and of the
test are different. Before and after, the test's questions are answered greedily and by sampling at temperature 1.

    .venv/bin/python bench/grpo.py [--quick] [--task reverse] [--digits 4] [--seeds 0 1 2] [--start 0.1 0.35]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from causerie.align import GrpoConfig, grpo
from causerie.align.pairs import encode_prompt
from causerie.core import Artifact, read_events, write_jsonl
from causerie.evals import wilson
from causerie.infer import Engine, EngineConfig, Sampling, generate_batch
from causerie.model import ModelShape, init_model, load_model, save_model
from causerie.text import load_chat_format, train_bpe
from causerie.train import SftConfig, sft

TASKS = {
    "max": lambda text: max(text),
    "reverse": lambda text: text[::-1],
    "copy": lambda text: text,
    "sort": lambda text: "".join(sorted(text)),
}
"""What to do with some digits; the answer is a number, compared exactly."""


def tasks(name: str, digits: int, seed: int, count: int) -> list[dict[str, str]]:
    """So many different questions about `digits` digits; no digit is 0, so that answers are numbers of full length."""
    chosen = random.Random(seed).sample(range(9**digits), count)
    texts = ["".join(str(1 + number // 9**place % 9) for place in range(digits)) for number in chosen]
    return [{"prompt": f"{name} " + " ".join(text), "answer": TASKS[name](text)} for text in texts]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--task", default="reverse", choices=tuple(TASKS))
    parser.add_argument("--digits", type=int, default=4)
    parser.add_argument("--variant", default="dapo", choices=("grpo", "dr_grpo", "dapo"))
    parser.add_argument("--sft-steps", type=int, default=0, help="0: as many as leave a share within --start")
    parser.add_argument("--start", type=float, nargs=2, default=[0.1, 0.35], help="sampled right before GRPO")
    parser.add_argument("--sft-batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=190)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--prompts", type=int, default=24, help="prompts per update")
    parser.add_argument("--group", type=int, default=16, help="answers per prompt")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--questions", type=int, default=5000, help="questions to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    if given.quick:
        given.sft_steps, given.steps, given.questions = 10, 2, 200
    return given


def main() -> None:
    """One line of JSON for each seed."""
    given = parse()
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as place:
            sys.stdout.write(json.dumps(run(given, seed, Path(place))) + "\n")
            sys.stdout.flush()


def taught_within(given: argparse.Namespace, seed: int, rows: list[dict[str, str]], workspace: Path) -> Artifact:
    """A model whose sampled answers to 200 questions of the training set are right as often as `--start` says.

    Learning such a task is a jump within some ten steps that come sooner or later by seed: the number is bisected.
    """
    if given.sft_steps:
        return teach(given, seed, rows, workspace, given.sft_steps)
    low, high = 60, 180
    while True:
        steps = (low + high) // 2
        found = teach(given, seed, rows, workspace, steps)
        share = float(solved(found.path, rows[:200], 1.0, 1)["share"])
        sys.stderr.write(f"seed {seed}: {steps} steps leave {share:.1%}\n")
        if given.start[0] <= share <= given.start[1] or high - low <= 1:
            return found
        low, high = (steps, high) if share < given.start[0] else (low, steps)


def teach(given: argparse.Namespace, seed: int, rows: list[dict[str, str]], workspace: Path, steps: int) -> Artifact:
    """A model from nothing, after some steps of fine-tuning on examples."""
    folder = workspace / "base"
    folder.mkdir(parents=True, exist_ok=True)
    words = ["user assistant system", *TASKS]
    tokenizer = train_bpe([" ".join(words)] * 9 + [f"{i}" for i in range(10)], 290)
    shape = ModelShape(
        family="qwen3", n_layer=given.layers, n_embd=given.width, n_head=4, n_kv_head=2, head_dim=given.width // 4,
        ffn_dim=3 * given.width, vocab_size=tokenizer.vocab_size, max_seq_len=128,
    )  # fmt: skip
    model = init_model(shape, seed)
    tokenizer.save(folder)
    save_model(model, folder, folder)
    talks = [
        {"messages": [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["answer"]}]}
        for r in rows
    ]
    write_jsonl(workspace / "talks.jsonl", talks)
    settings = SftConfig(
        model=folder, data=(workspace / "talks.jsonl",), steps=steps, batch_size=given.sft_batch, seq_len=256,
        lr=2e-3, precision="fp32", compile="off", seed=seed,
    )  # fmt: skip
    return sft(settings, workspace)


def solved(folder: Path, rows: list[dict[str, str]], temperature: float, copies: int) -> dict[str, Any]:
    """Share of right answers, with a 95 % interval (over answers)."""
    chat = load_chat_format(folder)
    engine = Engine(load_model(folder), EngineConfig(max_running=256, max_batch_tokens=2048))
    ids = [list(encode_prompt(chat, [{"role": "user", "content": row["prompt"]}])) for row in rows]
    how = [
        Sampling(max_tokens=12, temperature=temperature, stop_ids=chat.stop_ids, seed=place)
        for place in range(len(rows) * copies)
    ]
    found = generate_batch(engine, [one for one in ids for _ in range(copies)], how)
    right = sum(
        chat.tokenizer.decode([t for t in item.ids if t not in chat.stop_ids]).strip() == rows[i // copies]["answer"]
        for i, item in enumerate(found)
    )
    interval = wilson(right, len(found))
    return {
        "share": round(right / len(found), 4),
        "interval": [round(interval.low or 0.0, 4), round(interval.high or 1.0, 4)],
    }


def run(given: argparse.Namespace, seed: int, workspace: Path) -> dict[str, Any]:
    """One run in a workspace."""
    rows = tasks(given.task, given.digits, seed, given.questions + 500)
    test, train = rows[:500], rows[500:]
    write_jsonl(workspace / "train.jsonl", train)
    write_jsonl(workspace / "test.jsonl", test[:100])
    taught = taught_within(given, seed, train, workspace)
    began = time.monotonic()
    made = grpo(
        GrpoConfig(
            model=taught.path, prompts=workspace / "train.jsonl", heldout=workspace / "test.jsonl", steps=given.steps,
            batch_size=given.prompts, group_size=given.group, max_tokens=12, variant=given.variant, lr=given.lr,
            beta=given.beta, temperature=given.temperature, measure_rows=100, seq_len=64,
            eval_every=max(1, given.steps // 5), seed=seed, warmup=5,
        ),
        workspace,
    )  # fmt: skip
    seconds = time.monotonic() - began
    (folder,) = (workspace / "runs").glob("grpo-*")
    events = list(read_events(folder))
    paid = [e["reward"] for e in events if e["event"] == "rollout"]
    tenth = max(1, len(paid) // 10)
    sampling = sum(e["sampling_seconds"] for e in events if e["event"] == "rollout")
    return {
        "task": f"{given.task} of {given.digits} digits",
        "seed": seed,
        "sft_steps": taught.manifest.metrics["steps"],
        "questions_trained_on": len(train),
        "questions_tested": len(test),
        "sampled_before": solved(taught.path, test, 1.0, 4),
        "sampled_after": solved(made.path, test, 1.0, 4),
        "greedy_before": solved(taught.path, test, 0.0, 1),
        "greedy_after": solved(made.path, test, 0.0, 1),
        "reward_curve": [round(sum(paid[i : i + tenth]) / tenth, 3) for i in range(0, len(paid), tenth)],
        "updates": given.steps,
        "answers": given.steps * given.prompts * given.group,
        "largest_log_prob_gap": made.manifest.metrics["rows"]["log_prob_gap"],
        "seconds": round(seconds, 1),
        "sampling_seconds": round(sampling, 1),
    }


if __name__ == "__main__":
    main()
