"""How right `causerie plan` is, on data nobody here wrote: one table with every accuracy line.

Run: .venv/bin/python bench/plan_accuracy.py [--quick] [--chinchilla svg_extracted_data.csv] [--ladder FOLDER]

The tables are those of the data pack (CAUSERIE_DATA), folder scaling/. The 245 Chinchilla points behind the published
replication have no licence and are in no pack of ours: fetch data/svg_extracted_data.csv of
epoch-research/analyzing-chinchilla and name it; without it that line is skipped, with words.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from causerie.core import data_pack, read_json
from causerie.plan import fit_law, fit_task
from causerie.plan.measured import (
    bloom_times,
    llmfoundry_times,
    megatron_activations,
    megatron_times,
    nemotron_time,
    summary,
    two_cores_times,
)

REPLICATION = {"E": 1.81686, "A": 482.006, "B": 2085.434, "alpha": 0.34781, "beta": 0.36585}
"""Means over the replication's resamplings (arXiv:2404.10102, its notebook)."""
OPTIMUM = {"E": 1.8172, "A": 477.84, "B": 2143.86, "alpha": 0.3473, "beta": 0.3672}
"""Its notebook's best fit of the 240 points."""
INTERVALS = {"E": (1.769, 1.871), "A": (285.2, 743.6), "B": (1042.4, 5810.3), "alpha": (0.317, 0.373),
             "beta": (0.331, 0.415)}  # fmt: skip
"""Its 95 % intervals."""
TASKS = (
    "arc_easy", "bigbench_cs_algorithms", "bigbench_dyck_languages", "bigbench_novel_concepts", "bigbench_operators",
    "bigbench_qa_wikidata", "boolq", "copa", "coqa", "hellaswag", "hellaswag_zeroshot", "lambada_openai", "piqa",
    "pubmed_qa_labeled", "squad", "winograd", "winogrande",
)  # fmt: skip
"""Gadre et al.'s 17 tasks, as the tasks of the table that are clearly above chance at small size."""

Line = tuple[str, str, str, str]


def chinchilla(path: Path | None, bootstrap: int) -> Iterator[Line]:
    """The replication's fit and intervals."""
    if path is None or not path.is_file():
        yield ("Chinchilla re-fit", "replication's coefficients", "skipped: no --chinchilla file", "")
        return
    with open(path, encoding="utf-8") as file:
        rows = [[float(row[k]) for k in ("Model Size", "Training FLOP", "loss")] for row in csv.DictReader(file)]
    table = np.array(rows)[np.argsort([row[2] for row in rows])][:-5]
    n, d, loss = table[:, 0], table[:, 1] / 6 / table[:, 0], table[:, 2]
    began = time.process_time()
    fit = fit_law(n, d, loss, bootstrap=bootstrap)
    took = time.process_time() - began
    law = {name: getattr(fit.law, name) for name in OPTIMUM}
    worst = max(abs(law[name] / OPTIMUM[name] - 1) for name in OPTIMUM)
    found = ", ".join(f"{name} {value:.4g}" for name, value in law.items())
    yield ("Chinchilla re-fit, 240 points", "equal within rounding", found, verdict(worst <= 5e-4))
    intervals = fit.intervals(0.95)
    ratios = {k: (intervals[k][1] - intervals[k][0]) / (high - low) for k, (low, high) in INTERVALS.items()}
    words = ", ".join(f"{k} x{v:.2f}" for k, v in ratios.items())
    yield ("  widths of 95 % intervals", "within 20 %", words, verdict(all(0.8 <= v <= 1.2 for v in ratios.values())))
    yield (f"  time, {bootstrap} resamplings, one core", "< 10 s", f"{took:.1f} CPU s", verdict(took < 10))


def gadre(path: Path) -> Iterator[Line]:
    """The 1.4B and 6.9B losses from five runs of at most 411M parameters, and 17 tasks' mean error."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name, bar in (("rpj", 0.0075), ("c4_original", None), ("rw_original", None)):
        mine = [row for row in rows if row["dataset"] == name]
        small = [row for row in mine if is_small(row)]
        columns = [[float(row[k]) for row in small] for k in ("params", "tokens", "loss_c4_val")]
        fit = fit_law(*(np.array(column) for column in columns), bootstrap=0, tied=True)
        errors = {
            f"{float(row['params']) / 1e9:.1f}B x{float(row['chinchilla_multiplier']):g}": fit.law.loss(
                float(row["params"]), float(row["tokens"])
            ) / float(row["loss_c4_val"]) - 1
            for row in mine
            if float(row["params"]) > 1e9
        }  # fmt: skip
        words = ", ".join(f"{k} {100 * v:+.2f} %" for k, v in errors.items())
        judged = [v for k, v in errors.items() if k in ("1.4B x32", "6.9B x1")]
        passed = verdict(all(abs(v) <= bar for v in judged)) if bar else "as it comes"
        yield (f"Gadre, {len(small)} runs <= 411M, {name}", "1.4B, 6.9B <= 0.75 %" if bar else "-", words, passed)
        yield task_line(name, mine, small, fit)


def task_line(name: str, mine: list[dict[str, str]], small: list[dict[str, str]], fit: object) -> Line:
    """Mean error of 17 tasks: predicted loss, then the curve."""
    known = [*small, *(row for row in mine if row["arch"] == "open_" and float(row["params"]) < 2e9
                       and float(row["chinchilla_multiplier"]) == 1)]  # fmt: skip
    curve = fit_task(np.array([float(row["loss_c4_val"]) for row in known]), np.array([task_error(r) for r in known]))
    found = []
    for row in mine:
        if float(row["params"]) > 1e9 and row not in known:
            loss = fit.law.loss(float(row["params"]), float(row["tokens"]))  # type: ignore[attr-defined]
            error = curve.error(loss) / task_error(row) - 1
            found.append(
                f"{float(row['params']) / 1e9:.1f}B x{float(row['chinchilla_multiplier']):g} {100 * error:+.2f} %"
            )
    return (f"  17 tasks' error, {name}", "paper: 3.6 %, 0.05 % (rpj)", ", ".join(found), "as it comes")


def task_error(row: dict[str, str]) -> float:
    """Mean error of the 17 tasks."""
    return 1 - sum(float(row[f"acc_{task}"]) for task in TASKS) / len(TASKS)


def is_small(row: dict[str, str]) -> bool:
    """One of the paper's five: ratio 1 of the four small sizes, ratio 16 of the smallest."""
    multiplier = float(row["chinchilla_multiplier"])
    return float(row["params"]) < 5e8 and (multiplier == 1 or (multiplier == 16 and row["arch"].startswith("d=96")))


def speeds(folder: Path) -> Iterator[Line]:
    """Megatron's iteration times and activations; then rows that no constant was fitted to."""
    found = summary(megatron_times())
    words = f"mean {100 * found['mean']:.2f} %, max {100 * found['max']:.2f} %"
    yield ("Megatron, 8 iteration times, A100", "mean <= 4 %, max <= 9 %", words,
           verdict(found["mean"] <= 0.04 and found["max"] <= 0.09))  # fmt: skip
    found = summary(megatron_activations())
    words = f"mean {100 * found['mean']:.2f} %, max {100 * found['max']:.2f} %"
    yield ("Megatron, 8 activation memories", "mean <= 2.1 %", words, verdict(found["mean"] <= 0.021))
    yield ("Nemotron-4 340B on 6,144 H100", "fitted", f"{100 * nemotron_time().error:+.2f} %", "the H100's constant")
    found = summary(two_cores_times())
    words = f"mean {100 * found['mean']:.1f} %, max {100 * found['max']:.1f} %"
    yield ("Two cores, 4 of our own measurements", "fitted", words, "as it comes")
    rows, unread = llmfoundry_times(folder / "throughput_llmfoundry.csv")
    for group in ("", *sorted({row.group for row in rows})):
        mine = [row for row in rows if not group or row.group == group]
        yield spread(f"  llm-foundry {group}" if group else f"llm-foundry, {len(rows)} rows, {unread} unread", mine)
    yield halves("llm-foundry, one factor of half the rows", rows)
    rows, unread = bloom_times(folder / "throughput_bigscience_tr11.csv")
    yield spread(f"BLOOM sizing, {len(rows)} rows, {unread} left out", rows)
    yield halves("BLOOM sizing, one factor of half the rows", rows)


def halves(name: str, rows: list) -> Line:  # type: ignore[type-arg]
    """What is left when one factor for the software is taken from every other row and tried on the rest."""
    factor = float(np.median([row.measured / row.predicted for row in rows[::2]]))
    left = [abs(row.predicted * factor / row.measured - 1) for row in rows[1::2]]
    words = f"factor {factor:.2f}: median {100 * float(np.median(left)):.1f} %, max {100 * max(left):.0f} %"
    return (f"  {name}", "not used in plans", f"{words}, {len(left)} rows", "as it comes")


def spread(name: str, rows: list) -> Line:  # type: ignore[type-arg]
    """A line about rows out of sample."""
    found = summary(rows)
    words = (
        f"median {100 * found['median']:.1f} % (signed {100 * found['bias']:+.1f} %), max {100 * found['max']:.0f} %"
    )
    return (name, "out of sample: printed", f"{words}, {len(rows)} rows", "as it comes")


def ladder(path: Path) -> Iterator[Line]:
    """Our own series: the prediction's file with its score."""
    if not path.is_file():
        yield ("Our ladder", "error <= 1.5 %", f"skipped: no {path.name}", "")
        return
    stored = read_json(path)
    for score in stored.get("scores", []):
        inside = "inside" if score["within_interval"] else "outside"
        words = (
            f"predicted {stored['loss']:.4f}, measured {score['measured']:.4f}: {100 * score['relative_error']:+.2f} %, "
            f"{inside} the {100 * score['level']:.0f} % interval"
        )
        yield ("Our ladder's largest run", "error <= 1.5 %", words, verdict(abs(score["relative_error"]) <= 0.015))


def verdict(passed: bool) -> str:
    """In a word."""
    return "reached" if passed else "MISSED"


def main() -> int:
    """Print the table; status 1 when a bar is missed."""
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer resamplings")
    parser.add_argument("--chinchilla", type=Path, help="svg_extracted_data.csv of the replication")
    parser.add_argument("--ladder", type=Path, default=here / "docs" / "plans" / "ladder.json")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    pack = data_pack()
    lines = [*chinchilla(given.chinchilla, 50 if given.quick else 500)]
    if pack is None:
        lines.append(("published tables", "", "skipped: the data pack is not there (CAUSERIE_DATA)", ""))
    else:
        lines += [*gadre(pack / "scaling" / "gadre2024_104_models.csv"), *speeds(pack / "scaling")]
    lines += [*ladder(given.ladder)]
    if given.json:
        sys.stdout.write(json.dumps({"lines": lines}) + "\n")
    else:
        widths = [max(len(line[place]) for line in lines) for place in range(4)]
        for line in lines:
            sys.stdout.write(
                "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n"
            )
    return int(any(line[3] == "MISSED" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
