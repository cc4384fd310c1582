"""Our figures beside lm-evaluation-harness's: the same exported model, the same rows of the data pack.

The harness runs its own tasks (its prompts, its metrics, its `hf` model class) in the Python that has it; only their data
sets are pointed at local files, cut to `--limit` rows spread evenly. Ours are the suites `choice` and `last_word`. Every
log-likelihood is compared (ours are kept to four decimals) and every figure: `acc` and `acc_bytes` of multiple choice,
accuracy and perplexity of LAMBADA.
Our models open every document with a token, as in training; the harness does so when it is told to (`add_bos_token`)
and the tokenizer names the token, so it gets a copy of the folder with that name in `tokenizer_config.json`.

    .venv/bin/python bench/lm_eval_parity.py --model MODEL --peer-python ../peers/trl/bin/python [--limit 50]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACK = Path(os.environ.get("CAUSERIE_DATA", "../shared/data")) / "eval"
PARQUET = {
    "arc_easy": "ai2_arc_ARC-Easy",
    "arc_challenge": "ai2_arc_ARC-Challenge",
    "piqa": "piqa_plain_text",
    "openbookqa": "openbookqa_main",
    "sciq": "sciq_none",
    "winogrande": "winogrande_winogrande_xl",
    "boolq": "boolq_none",
    "cb": "super_glue_cb",
}
"""The harness's task → the data pack's file that it is run on."""
BLIMP = ("anaphor_gender_agreement", "principle_A_case_1", "wh_island")
PEER = r"""
import glob, json, os, sys
import lm_eval, yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
model, folder, out = sys.argv[1:]
home = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")
places = {}
for path in glob.glob(home + "/**/*.yaml", recursive=True):
    for line in open(path):
        if line.startswith("task:"):
            places[line.split(":", 1)[1].strip().strip('"')] = path
os.makedirs(folder + "/tasks")
names = sorted(os.path.basename(p)[:-6] for p in glob.glob(folder + "/*.jsonl"))
for name in names:
    task = {"include": places[name], "task": "ours_" + name, "tag": None, "dataset_path": "json", "dataset_name": None,
            "dataset_kwargs": {"data_files": {"validation": f"{folder}/{name}.jsonl"}}, "training_split": None,
            "validation_split": "validation", "test_split": None}
    if name == "hellaswag":
        task |= {"process_docs": None, "doc_to_target": "{{gold}}"}
    if name != "lambada_openai":
        task["metric_list"] = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_bytes")]
    with open(f"{folder}/tasks/{name}.yaml", "w") as file:
        yaml.safe_dump(task, file)
lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=4, add_bos_token=True, max_length=1024)
done = lm_eval.simple_evaluate(model=lm, tasks=["ours_" + n for n in names], bootstrap_iters=0, log_samples=True,
                               task_manager=TaskManager(include_path=folder + "/tasks"))
found = {}
for name in names:
    samples = sorted(done["samples"]["ours_" + name], key=lambda row: row["doc_id"])
    found[name] = {
        "log_p": [float(r[0]) for s in samples for r in s["filtered_resps"]],
        "greedy": [bool(r[1]) for s in samples for r in s["filtered_resps"]],
        "figures": {k.split(",")[0]: v for k, v in done["results"]["ours_" + name].items() if isinstance(v, float)},
    }
json.dump({"version": lm_eval.__version__, "found": found}, open(out, "w"))
"""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", type=Path, required=True)
    made.add_argument("--peer-python", default=os.environ.get("LM_EVAL_PYTHON", "../peers/trl/bin/python"))
    made.add_argument("--tasks", nargs="*", default=[*PARQUET, "hellaswag", "lambada_openai", *BLIMP])
    made.add_argument("--limit", type=int, default=50)
    made.add_argument("--quick", action="store_true")
    args = made.parse_args()
    if subprocess.run([args.peer_python, "-c", "import lm_eval"], capture_output=True, check=False).returncode:
        sys.exit(f"left out: {args.peer_python} has no lm_eval")
    if args.quick:
        args.limit, args.tasks = 5, ["arc_easy", "lambada_openai"]
    with tempfile.TemporaryDirectory() as place:
        rows = Path(place) / "rows"
        rows.mkdir()
        for task in args.tasks:
            write_rows(task, args.limit, rows)
        answer = harness(args, Path(place), rows)
        print(
            f"lm-evaluation-harness {answer['version']} against causerie, {args.model.name}, {args.limit} rows a task"
        )
        print(
            f"{'task':26s} {'rows':>5s} {'acc':>23s} {'acc_bytes (perplexity)':>23s}  largest |Δ log p|; greedy flags that differ"
        )
        worst = [compare(args, task, rows, answer["found"][task], Path(place)) for task in args.tasks]
    print(f"largest difference of all log-likelihoods: {max(worst):.2e} nats")


def write_rows(task: str, limit: int, folder: Path) -> None:
    """The task's rows as the harness's data set has them, as JSON lines."""
    import pyarrow.parquet as parquet

    from causerie.evals.rows import read_rows, spread

    if task in PARQUET:
        (path,) = (PACK / "multiple_choice").glob(f"{PARQUET[task]}*.parquet")
        rows = parquet.read_table(path).to_pylist()
        if task == "boolq":
            rows = [{**row, "label": int(row["answer"])} for row in rows]
    elif task == "hellaswag":
        path = PACK / "olmo_oe_eval" / "hellaswag" / "rc_5shot" / "requests.jsonl.gz"
        rows = list({row["doc"]["ind"]: row["doc"] for _, row in read_rows(path)}.values())
    elif task == "lambada_openai":
        found = [row for _, row in read_rows(PACK / "lambada_test.jsonl.gz")]
        rows = [{"text": f"{row['context'].rstrip()} {row['continuation']}"} for row in found]
    else:
        import zipfile

        with zipfile.ZipFile(PACK / "blimp_jsonl.zip") as archive:
            name = next(name for name in archive.namelist() if Path(name).name == f"{task}.jsonl")
            rows = [json.loads(line) for line in archive.read(name).decode().splitlines()]
    (folder / f"{name_of(task)}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spread(rows, limit)))


def name_of(task: str) -> str:
    return f"blimp_{task}" if task in BLIMP else task


def harness(args: argparse.Namespace, place: Path, rows: Path) -> dict:
    from causerie.text import load_tokenizer

    copy, out = place / "model", place / "out.json"
    shutil.copytree(args.model, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    tokenizer = load_tokenizer(args.model)
    settings.setdefault("bos_token", next(text for text, id in tokenizer.special.items() if id == tokenizer.eot_id))
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    command = [args.peer_python, "-W", "ignore", "-c", PEER, str(copy), str(rows), str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(place / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **offline})
    if done.returncode:
        sys.exit(f"lm-eval failed:\n{done.stderr[-3000:]}")
    answer = json.loads(out.read_text())
    answer["found"] = {task: answer["found"][name_of(task)] for task in args.tasks}
    return answer


def compare(args: argparse.Namespace, task: str, rows: Path, theirs: dict, place: Path) -> float:
    """Print one line; returns the largest difference of a log-likelihood."""
    import math

    from causerie.evals import EvalConfig, choice, estimate, last_word
    from causerie.evals.subject import Subject

    global subject
    subject = subject or Subject(args.model, EvalConfig(model=args.model, max_length=1024))
    flags = ""
    if task == "lambada_openai":
        result = last_word.run(subject, rows / f"{task}.jsonl")
        mine = [-item.values["nats_per_word"] for item in result.items]
        ours = [estimate(result, "right", seed=0).value, math.exp(estimate(result, "nats_per_word", seed=0).value)]
        others = [theirs["figures"]["acc"], theirs["figures"]["perplexity"]]
        wrong = sum(a != b for a, b in zip((i.values["right"] for i in result.items), theirs["greedy"], strict=True))
        flags = f", {wrong}"
    else:
        result = choice.run(subject, [ours_file(task, rows / f"{name_of(task)}.jsonl", place)])
        mine = [value for item in result.items for value in item.detail["log_p"]]
        name = result.metrics[0].name
        ours = [estimate(result, f"{name}.sum", seed=0).value, estimate(result, name, seed=0).value]
        others = [theirs["figures"]["acc"], theirs["figures"]["acc_bytes"]]
        if task == "winogrande":  # the harness would divide by the options' lengths, which are not what is scored
            ours[1] = others[1] = math.nan
    worst = max(abs(a - b) for a, b in zip(mine, theirs["log_p"], strict=True))
    columns = " ".join(f"{f'{a:.4f} / {b:.4f}':>23s}" for a, b in zip(ours, others, strict=True))
    print(f"{task:26s} {len(result.items):5d} {columns}  {worst:.1e}{flags}", flush=True)
    return worst


subject = None


def ours_file(task: str, rows: Path, place: Path) -> Path:
    """The same rows in the form in which our reader finds the set."""
    import zipfile

    import pyarrow as pa
    import pyarrow.parquet as parquet

    found = [json.loads(line) for line in rows.read_text().splitlines()]
    if task in PARQUET:
        if task == "boolq":
            found = [{name: value for name, value in row.items() if name != "label"} for row in found]
        path = place / f"{PARQUET[task]}.parquet"
        parquet.write_table(pa.Table.from_pylist(found), path)
    elif task == "hellaswag":
        (place / "hellaswag").mkdir()
        path = place / "hellaswag" / "requests.jsonl"
        path.write_text("".join(json.dumps({"doc": row}) + "\n" for row in found))
    else:
        path = place / f"blimp_{task}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{task}.jsonl", rows.read_text())
    return path


if __name__ == "__main__":
    main()
