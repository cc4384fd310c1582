"""How well a frozen, pretrained trunk tells which of two answers people preferred: five folds grouped by prompt.

Beside it on the same pairs and folds: a bag of words (TF-IDF differences, logistic regression), "the shorter answer
wins", and random heads on the same trunk. The trunk's last states are computed once, after several blocks; the head is
the one that `causerie train reward` starts from. Which block and which ridge are chosen inside each fold's training
part, by a validation quarter of its conversations; every pair is tested once, by a head that saw nothing of its fold.

    .venv/bin/python bench/reward.py --model FOLDER [--depths 9 12 15 18] [--pairs harmless-base] [--states FILE]

`--states` keeps the states, so that a second run only fits heads. An answer that is too long keeps its end, where the
reward is read.
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
from safetensors.torch import load_file, save_file
from torch import Tensor

from causerie.align import encode_answer, encode_prompt, layout
from causerie.align.batches import length_batches
from causerie.align.objective_reward import RIDGES, fit_probe, random_heads
from causerie.align.rankings import Ranking
from causerie.align.shared_rows import group_hidden
from causerie.core import CauserieError, data_pack, track
from causerie.evals import bootstrap_ratio, paired_difference
from causerie.feedback.formats import Origin, parse_row
from causerie.model import load_model
from causerie.text import ChatFormat, load_chat_format

FOLDS = 5


def main() -> None:
    """Read, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--depths", type=int, nargs="+", default=[6, 9, 12, 15, 17, 18])
    parser.add_argument("--states", type=Path, help="file that keeps the states (.safetensors)")
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
    states = kept_states(given, rows)
    seconds = time.process_time() - began
    clusters = [json.dumps(texts[int(row.id)][0][:1]) for row in rows]
    sys.stdout.write(json.dumps(report(rows, kept, clusters, states, given.depths, seconds)) + "\n")


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
    first, second = (encode_answer(chat, text)[-length // 2 :] for text in (chosen, rejected))
    if first == second or max(len(first), len(second)) < 2:
        return None
    return Ranking(str(number), ids[-(length - max(len(first), len(second))) :], (first, second), (0, 1))


def kept_states(given: argparse.Namespace, rows: Sequence[Ranking]) -> Tensor:
    """Normed states of both answers' last tokens after each of `--depths` blocks, (n, 2, depths, D).

    Read from `--states` where they are there already.
    """
    if given.states is not None and given.states.is_file():
        found = load_file(given.states)["states"]
        if found.shape[:3] != (len(rows), 2, len(given.depths)):
            sys.exit(f"{given.states} holds states of other pairs or depths: {tuple(found.shape)}")
        return found.float()
    found = all_states(given, rows)
    if given.states is not None:
        save_file({"states": found.half()}, given.states)
    return found


def all_states(given: argparse.Namespace, rows: Sequence[Ranking]) -> Tensor:
    """`kept_states`, computed in one pass over the trunk."""
    model = load_model(given.model, dtype=torch.bfloat16).eval()
    after: dict[int, Tensor] = {}
    for depth in given.depths:

        def note(_module: Any, _inputs: Any, output: Tensor, depth: int = depth) -> None:
            after[depth] = output

        model.layers[depth - 1].register_forward_hook(note)
    found = torch.zeros((len(rows), 2, len(given.depths), model.shape.n_embd))
    with torch.no_grad(), track("states", len(rows), "pairs") as tracker:
        for indices in length_batches([row.group.length for row in rows], 1024):
            batch = layout([rows[index].group for index in indices])
            group_hidden(model, batch)
            for place, depth in enumerate(given.depths):
                ends = model.norm(after[depth].reshape(-1, model.shape.n_embd)[batch["ends"]]).float()
                found[indices, :, place] = ends.view(len(indices), 2, -1)
            tracker.advance(len(indices))
    return found


def report(
    rows: Sequence[Ranking],
    texts: Sequence[tuple[str, str]],
    clusters: Sequence[str],
    states: Tensor,
    depths: Sequence[int],
    seconds: float,
) -> dict[str, Any]:
    """Accuracies with intervals, and the probe's difference to the bag of words by prompt."""
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    order = np.random.default_rng(0).permutation(len(names))
    fold = (order % FOLDS)[[names[name] for name in clusters]]
    probe, words, chosen = np.zeros(len(rows)), np.zeros(len(rows)), []
    for number in range(FOLDS):
        inside, out = fold != number, torch.from_numpy(fold == number)
        validation = inside & ((order // FOLDS % 4 == 0)[[names[name] for name in clusters]])
        place, l2 = choose(states, inside & ~validation, validation)
        chosen.append({"depth": depths[place], "ridge": l2})
        head = head_of(states[:, :, place], inside, l2)
        probe[fold == number] = (((states[out, 0, place] - states[out, 1, place]) @ head) > 0).numpy()
        words[fold == number] = bag_of_words(texts, inside)[fold == number]
    lengths = np.array([[len(c) for c in row.completions] for row in rows])
    shorter = np.where(lengths[:, 0] < lengths[:, 1], 1.0, np.where(lengths[:, 0] == lengths[:, 1], 0.5, 0.0))
    place_of = [names[name] for name in clusters]
    sizes = np.bincount(place_of).astype(np.float64)
    sums = [np.bincount(place_of, found).astype(np.float64) for found in (probe, words)]
    by_prompt = [bootstrap_ratio(found, sizes, seed=0) for found in sums]
    return {
        "pairs": len(rows),
        "conversations": len(names),
        "probe": str(by_prompt[0]),
        "bag_of_words": str(by_prompt[1]),
        "probe_minus_bag": str(paired_difference((sums[0], sizes), (sums[1], sizes), seed=0)),
        "chosen_in_each_fold": chosen,
        "shorter_wins": round(float(shorter.mean()), 4),
        "untrained_heads": random_heads(states[:, :, -1], torch.tensor([[0, 1]] * len(rows)), 0),
        "cpu_seconds_for_states": round(seconds, 1),
    }


def choose(states: Tensor, train: np.ndarray, validation: np.ndarray) -> tuple[int, float]:
    """The depth's place and the ridge whose head, fitted on `train`, is right most often on `validation`."""
    apart = torch.from_numpy(validation)
    scores = {}
    for place in range(states.shape[2]):
        difference = states[apart, 0, place] - states[apart, 1, place]
        for l2 in RIDGES:
            head = head_of(states[:, :, place], train, l2)
            scores[place, l2] = float(((difference @ head) > 0).float().mean())
    return max(scores, key=lambda one: scores[one])


def head_of(states: Tensor, inside: np.ndarray, l2: float) -> Tensor:
    """The head fitted on some pairs of `(n, 2, D)` states."""
    count = int(inside.sum())
    values = {"ranks": torch.tensor([[0, 1]] * count), "weight": torch.ones(count)}
    return fit_probe(states[torch.from_numpy(inside)], values, l2=l2)


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
