"""How well a frozen, pretrained trunk tells which of two answers people preferred: five folds grouped by prompt.

Beside it on the same pairs and folds: a bag of words (TF-IDF differences, logistic regression), "the shorter answer
wins", and random heads on the same trunk. The trunk's last states are computed once; the head is the one that
`causerie train reward` starts from (its ridge is chosen inside the training folds).

    .venv/bin/python bench/reward.py --model FOLDER [--layers 15] [--pairs harmless-base] [--limit 0]
"""

from __future__ import annotations

import argparse
import collections
import gzip
import itertools
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from causerie.align import layout
from causerie.align.objective_reward import best_ridge, fit_probe, random_heads
from causerie.align.pairs import encode_answer, encode_prompt, fit_length
from causerie.align.rankings import Ranking
from causerie.align.reward_model import keep_layers, read_states
from causerie.core import CauserieError, data_pack, track
from causerie.evals import paired_difference, wilson
from causerie.feedback.formats import Origin, parse_row
from causerie.model import load_model
from causerie.text import ChatFormat, load_chat_format

FOLDS = 5


def main() -> None:
    """Read, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--pairs", default="harmless-base")
    parser.add_argument("--seq-len", type=int, default=192)
    parser.add_argument("--limit", type=int, default=0)
    given = parser.parse_args()
    pack = data_pack()
    if pack is None:
        sys.exit("this bench needs the data pack (CAUSERIE_DATA)")
    chat = load_chat_format(given.model)
    texts = read_texts(pack / "preference" / "hh-rlhf" / given.pairs / "train.jsonl.gz", given.limit)
    rows, kept = [], []
    for number, (prompt, chosen, rejected) in enumerate(texts):
        if (row := encode(chat, number, prompt, chosen, rejected, given.seq_len)) is not None:
            rows.append(row)
            kept.append((chosen, rejected))
    began = time.process_time()
    states = all_states(given, rows)
    seconds = time.process_time() - began
    clusters = [json.dumps(texts[int(row.id)][0][:1]) for row in rows]
    sys.stdout.write(json.dumps(report(rows, kept, clusters, states, seconds)) + "\n")


def read_texts(path: Path, limit: int) -> list[tuple[list[dict[str, str]], str, str]]:
    """Prompt, chosen and rejected answer of every usable line."""
    found = []
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            try:
                _, (shown, said) = parse_row(json.loads(line), Origin("hh", "MIT", "en"))
            except Exception:
                continue
            better = said[0].exposure_id
            chosen = next(e for e in shown if e.id == better)
            rejected = next((e for e in shown if e.id != better), None)
            if rejected is not None:
                found.append(([dict(m) for m in chosen.prompt], chosen.text, rejected.text))
            if limit and len(found) >= limit:
                break
    return found


def encode(chat: ChatFormat, number: int, prompt: Any, chosen: str, rejected: str, length: int) -> Ranking | None:
    """A pair as token ids; None where it cannot be one."""
    try:
        ids = encode_prompt(chat, prompt)
    except CauserieError:
        return None
    cut, kept = fit_length(ids, (encode_answer(chat, chosen), encode_answer(chat, rejected)), length)
    return None if kept[0] == kept[1] else Ranking(str(number), cut, kept, (0, 1))


def all_states(given: argparse.Namespace, rows: Sequence[Ranking]) -> Tensor:
    """Last states of both answers, (n, 2, D)."""
    model = load_model(given.model, dtype=torch.bfloat16).eval()
    if given.layers:
        keep_layers(model, given.layers)
    found = torch.zeros((len(rows), 2, model.shape.n_embd))
    with torch.no_grad(), track("states", len(rows), "pairs") as tracker:
        for start in range(0, len(rows), 4):
            part = rows[start : start + 4]
            states = read_states(model, layout([row.group for row in part]))
            found[start : start + 4] = states.view(len(part), 2, -1)
            tracker.advance(len(part))
    return found


def report(
    rows: Sequence[Ranking], texts: Sequence[tuple[str, str]], clusters: Sequence[str], states: Tensor, seconds: float
) -> dict[str, Any]:
    """Accuracies with intervals, and the probe's difference to the bag of words by prompt."""
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    fold = (np.random.default_rng(0).permutation(len(names)) % FOLDS)[[names[name] for name in clusters]]
    probe, words = np.zeros(len(rows)), np.zeros(len(rows))
    for number in range(FOLDS):
        inside, out = torch.from_numpy(fold != number), torch.from_numpy(fold == number)
        values = {"ranks": torch.tensor([[0, 1]] * int(inside.sum())), "weight": torch.ones(int(inside.sum()))}
        l2 = best_ridge(states[inside], values, [rows[i].prompt for i in inside.nonzero().flatten().tolist()], 0)
        head = fit_probe(states[inside], values, l2=l2)
        probe[fold == number] = (((states[out, 0] - states[out, 1]) @ head) > 0).numpy()
        words[fold == number] = bag_of_words(texts, fold != number)[fold == number]
    lengths = np.array([[len(c) for c in row.completions] for row in rows])
    shorter = np.where(lengths[:, 0] < lengths[:, 1], 1.0, np.where(lengths[:, 0] == lengths[:, 1], 0.5, 0.0))
    place, sizes = [names[name] for name in clusters], np.bincount([names[name] for name in clusters]).astype(float)
    difference = paired_difference((np.bincount(place, probe), sizes), (np.bincount(place, words), sizes), seed=0)
    return {
        "pairs": len(rows),
        "probe": figure(probe),
        "bag_of_words": figure(words),
        "probe_minus_bag": str(difference),
        "shorter_wins": round(float(shorter.mean()), 4),
        "untrained_heads": random_heads(states, torch.tensor([[0, 1]] * len(rows)), 0),
        "cpu_seconds_for_states": round(seconds, 1),
    }


def figure(right: np.ndarray) -> str:
    """Accuracy with its 95 % interval."""
    interval = wilson(int(right.sum()), len(right))
    return str(interval)


def bag_of_words(texts: Sequence[tuple[str, str]], inside: np.ndarray) -> np.ndarray:
    """1 where logistic regression on TF-IDF differences (words and pairs of words), fitted inside, prefers the chosen."""
    counts = [[collections.Counter(terms(text)) for text in pair] for pair in texts]
    seen = collections.Counter(term for i in np.flatnonzero(inside) for side in counts[i] for term in side)
    index = {term: number for number, term in enumerate(term for term, count in seen.items() if count >= 3)}
    total = 2 * int(inside.sum())
    idf = {term: math.log((1 + total) / (1 + seen[term])) + 1 for term in index}
    x = torch.zeros((len(texts), len(index)))
    for row, pair in enumerate(counts):
        for sign, side in ((1.0, pair[0]), (-1.0, pair[1])):
            weights = {term: (1 + math.log(n)) * idf[term] for term, n in side.items() if term in index}
            norm = math.sqrt(sum(w * w for w in weights.values())) or 1.0
            for term, weight in weights.items():
                x[row, index[term]] += sign * weight / norm
    keep, w = torch.from_numpy(inside.astype(np.float32)), torch.zeros((len(index), 1), requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (torch.nn.functional.softplus(-(x @ w)[:, 0]) * keep).sum() + 0.5 * (w**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return ((x @ w.detach())[:, 0] > 0).numpy().astype(float)


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words."""
    words = re.findall(r"\w+", text.lower())
    return words + [f"{a} {b}" for a, b in itertools.pairwise(words)]


if __name__ == "__main__":
    main()
