"""Do real people's choices move a pretrained model the right way? DPO, or KTO on the same pairs as thumbs.

Pairs of hh-rlhf in the data pack that fit in `--longest` tokens (prompt and both answers) are split in halves by the
conversation's first question: one is trained on, in a single pass, so that the accuracy on each fresh batch already is
an honest one; the other is scored once. Reported: implicit accuracy (the margin rose against the reference's) with a
95 % interval over conversations, beside what "shorter wins" scores, and bits per byte of web text before and after.

    .venv/bin/python bench/human_pairs.py --model FOLDER [--method kto] [--workspace FOLDER]
    .venv/bin/python bench/human_pairs.py --model WORKSPACE/adapter/human-dpo-... --second FOLDER
    (the second goes on with the other half, and scores fresh, longer pairs)

The training is an ordinary run in the workspace: stopped and started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causerie.align import DpoConfig, Group, KtoConfig, dpo, encode_answer, encode_prompt, kto, read_pairs
from causerie.align.scoring import reference_log_probs
from causerie.core import Artifact, CauserieError, content_key, data_pack, sha256_json, write_jsonl
from causerie.evals import EvalConfig, bootstrap_ratio, evaluate
from causerie.feedback.formats import Origin, parse_row
from causerie.model import load_model
from causerie.text import ChatFormat, load_chat_format


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model or adapter folder")
    parser.add_argument("--second", type=Path, metavar="START", help="where --model, made by a first pass, began")
    parser.add_argument("--workspace", type=Path, default=Path("human-pairs"))
    parser.add_argument("--method", choices=("dpo", "kto"), default="dpo")
    parser.add_argument("--sets", nargs="+", default=["harmless-base"])
    parser.add_argument("--lr", type=float, default=6e-5)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--nll-weight", type=float, default=0.1, help="of DPO")
    parser.add_argument("--batch-size", type=int, default=8, help="pairs per update; twice as many thumbs")
    parser.add_argument("--longest", type=int, default=136)
    parser.add_argument("--documents", type=int, default=30)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train (or find the trained), score, print one line of JSON."""
    given = parse()
    pack = data_pack()
    if pack is None:
        sys.exit("this bench needs the data pack (CAUSERIE_DATA)")
    chat = load_chat_format(given.model)
    rows = [row for name in given.sets for row in read_set(pack / "preference/hh-rlhf" / name)]
    parts = split(rows, chat, given)
    rows = parts["test"] if given.second else [row for name in ("train", "test") for row in parts[name]]
    folder = given.workspace / f"pairs-{sha256_json([row['id'] for row in rows])[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_preferences(folder, parts)
    began = time.process_time()
    made = train(given, folder)
    seconds = time.process_time() - began
    documents = folder / "documents.jsonl"
    write_jsonl(documents, [{"id": str(i), "text": text[:1200]} for i, text in enumerate(web_texts(pack, given))])
    found = {
        "method": given.method,
        "artifact": made.path.name,
        "pairs": {name: len(rows) for name, rows in parts.items()},
        "cpu_seconds": round(seconds, 1),
        **preference(given, chat, made.path, folder / "test.jsonl"),
        **bits(given, made.path, documents),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def split(rows: list[dict[str, Any]], chat: ChatFormat, given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The pairs to train on and those to score: halves; in a second pass the other half, and fresh, longer questions."""
    sizes = {row["id"]: tokens_of(chat, row) for row in rows}
    short = [row for row in rows if sizes[row["id"]] <= given.longest][: 40 if given.quick else None]
    halves = [row for row in short if row["place"] >= 0.5], [row for row in short if row["place"] < 0.5]
    if not given.second:
        return {"train": halves[0], "test": halves[1]}
    seen = {row["prompt_key"] for row in rows if sizes[row["id"]] <= given.longest}
    fresh = [r for r in rows if given.longest < sizes[r["id"]] <= given.longest + 44 and r["prompt_key"] not in seen]
    return {"train": halves[1], "test": fresh[: 10 if given.quick else 310]}


def read_set(folder: Path) -> list[dict[str, Any]]:
    """Pairs of one set, with the hash in [0, 1) of the conversation's first question."""
    found = []
    with gzip.open(folder / "train.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file):
            try:
                _, (shown, said) = parse_row(json.loads(line), Origin("hh", "MIT", "en"))
            except Exception:  # the few lines of the set that are no pair
                continue
            chosen = next((e for e in shown if e.id == said[0].exposure_id), None)
            rejected = next((e for e in shown if e.id != said[0].exposure_id), None)
            if chosen is None or rejected is None or min(len(e.text.strip()) for e in (chosen, rejected)) < 2:
                continue
            prompt = [dict(message) for message in chosen.prompt]
            place = int(sha256_json(prompt[:1])[:8], 16) / 2**32
            found.append(
                {"id": f"{folder.name}/{number}", "place": place, "prompt": prompt, "prompt_key": sha256_json(prompt[:1]),
                 "chosen": chosen.text, "rejected": rejected.text}
            )  # fmt: skip
    return found


def tokens_of(chat: ChatFormat, row: dict[str, Any]) -> int:
    """Tokens of prompt and both answers; more than any limit where the prompt is no conversation."""
    try:
        prompt = encode_prompt(chat, row["prompt"])
    except CauserieError:
        return sys.maxsize
    return len(prompt) + sum(len(encode_answer(chat, row[side])) for side in ("chosen", "rejected"))


def write_preferences(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> None:
    """The folder that the trainers read, pairs and each pair as a thumb up and a thumb down; the test rows apart."""
    thumbs = [
        {"id": f"{row['id']}/{side}", "prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in parts["train"]
        for side in ("chosen", "rejected")
    ]
    write_jsonl(folder / "pairs.jsonl", parts["train"])
    write_jsonl(folder / "unpaired.jsonl", thumbs)
    write_jsonl(folder / "test.jsonl", parts["test"])


def train(given: argparse.Namespace, folder: Path) -> Artifact:
    """The trained adapter (or model)."""
    settings: dict[str, Any] = {
        "model": given.model, "preferences": folder, "seq_len": given.longest, "lr": given.lr, "beta": given.beta,
        "measure_rows": 8, "warmup": 3, "name": f"human-{given.method}", "checkpoint_every": 10,
    }  # fmt: skip
    size = given.batch_size
    if given.method == "dpo":
        return dpo(DpoConfig(**settings, batch_size=size, nll_weight=given.nll_weight), given.workspace)
    return kto(KtoConfig(**settings, batch_size=2 * size), given.workspace)


def preference(given: argparse.Namespace, chat: ChatFormat, after: Path, rows: Path) -> dict[str, Any]:
    """Implicit accuracy on a part, and what stands beside it."""
    pairs = read_pairs(rows, chat, given.longest).rows
    keys = {str(row["id"]): row["prompt_key"] for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines())}
    groups = [Group(pair.prompt, (pair.chosen, pair.rejected)) for pair in pairs]
    scores = [scored(given.workspace, path, groups) for path in (given.second or given.model, after)]
    lengths = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in pairs])
    margins = [score[:, 0] - score[:, 1] for score in scores]
    clusters = [keys[pair.id] for pair in pairs]
    return {
        "held_out": len(pairs),
        "implicit_accuracy": interval(margins[1] - margins[0], clusters),
        "more_likely_before": interval(margins[0], clusters),
        "more_likely_after": interval(margins[1], clusters),
        "shorter_wins": interval((lengths[:, 1] - lengths[:, 0]).float(), clusters),
        "implicit_margin": round(float((margins[1] - margins[0]).mean()), 4),
        "chosen_drift_per_token": round(float(((scores[1] - scores[0]) / lengths)[:, 0].mean()), 4),
    }


def scored(workspace: Path, model: Path, groups: Sequence[Group]) -> Tensor:
    """Log-probabilities (n, 2) of both answers, kept in the workspace."""
    policy = load_model(model, dtype=torch.bfloat16)
    return reference_log_probs(
        policy, groups, workspace=workspace, model_key=content_key(model), precision="bf16", label=model.name
    )


def interval(difference: Tensor, clusters: Sequence[str]) -> str:
    """Share above 0 (a tie counts half) with its 95 % interval, conversations resampled as wholes."""
    won = (difference > 0).double() + 0.5 * (difference == 0).double()
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    place = np.array([names[name] for name in clusters])
    return str(bootstrap_ratio(np.bincount(place, won.numpy()), np.bincount(place).astype(np.float64), seed=0))


def web_texts(pack: Path, given: argparse.Namespace) -> list[str]:
    """Documents of the pack that nothing here is trained on."""
    import io

    import zstandard

    count = 4 if given.quick else given.documents
    reader = zstandard.ZstdDecompressor(max_window_size=2**27)
    with open(pack / "pretrain" / "en-002.jsonl.zst", "rb") as raw:
        lines = io.TextIOWrapper(reader.stream_reader(raw), encoding="utf-8", newline="\n")
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


def bits(given: argparse.Namespace, after: Path, documents: Path) -> dict[str, Any]:
    """Bits per byte of the documents, before and after, and the change in percent."""
    settings = EvalConfig(
        model=given.second or given.model, suites=("bits_per_byte",), documents=documents, max_length=256
    )
    values = [
        evaluate(dataclasses.replace(settings, model=path), given.workspace).value("bits_per_byte", "bits_per_byte")
        for path in (given.second or given.model, after)
    ]
    return {
        "bits_per_byte": [round(value, 5) for value in values],
        "bits_change_percent": round(100 * (values[1] / values[0] - 1), 3),
    }


if __name__ == "__main__":
    main()
