"""Our likelihoods beside lm-evaluation-harness's: same model, same questions of the data pack, its own HFLM class.

Each question's choices are scored by causerie's `choice` suite and by `HFLM.loglikelihood` of the harness, run by the
python that has it; accuracies by sum (its `acc`) and by length (`acc_norm`; it divides by characters, we by UTF-8 bytes)
stand side by side with the largest difference of a log-likelihood.

    .venv/bin/python bench/lm_eval_parity.py --model MODEL --sets SET... --peer-python ../peers/trl/bin/python [--limit 50]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PEER = """
import json, sys
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
model, rows, out = sys.argv[1:]
lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=1, add_bos_token=False, prefix_token_id=int(open(rows + ".eot").read()))
made = [Instance("loglikelihood", {}, tuple(pair), i) for i, pair in enumerate(json.load(open(rows)))]
json.dump([float(row[0]) for row in lm.loglikelihood(made)], open(out, "w"))
"""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", type=Path, required=True)
    made.add_argument("--sets", type=Path, nargs="+", required=True)
    made.add_argument("--peer-python", default=os.environ.get("LM_EVAL_PYTHON", "../peers/trl/bin/python"))
    made.add_argument("--limit", type=int, default=50)
    made.add_argument("--quick", action="store_true")
    args = made.parse_args()
    if subprocess.run([args.peer_python, "-c", "import lm_eval"], capture_output=True, check=False).returncode:
        sys.exit(f"left out: {args.peer_python} has no lm_eval")
    if args.quick:
        args.limit = 5
    from causerie.evals import EvalConfig
    from causerie.evals.choice import run
    from causerie.evals.choice_sets import read_set
    from causerie.evals.likelihood_sets import read_public_set
    from causerie.evals.rows import spread
    from causerie.evals.subject import Subject

    subject = Subject(args.model, EvalConfig(model=args.model, limit=args.limit, max_length=1024))
    for path in args.sets:
        name, questions = read_public_set(path) or read_set(path)
        chosen = spread(questions, args.limit)
        result = run(subject, [path])
        mine = [value for item in result.items for value in item.detail["log_p"]]
        pairs = [(q.contexts[i], q.endings[i]) for q in chosen for i in range(len(q.endings))]
        theirs = peer(args, pairs, subject.tokenizer.eot_id)
        worst = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
        ours_acc, peer_acc = accuracies(chosen, mine), accuracies(chosen, theirs)
        print(
            f"{name}: {len(chosen)} questions; acc {ours_acc[0]:.4f} / {peer_acc[0]:.4f}, acc_norm {ours_acc[1]:.4f} / {peer_acc[1]:.4f}"
            f" (causerie / lm-eval), largest |difference| of a log-likelihood {worst:.4f} nats"
        )


def peer(args: argparse.Namespace, pairs: list[tuple[str, str]], eot: int) -> list[float]:
    with tempfile.TemporaryDirectory() as place:
        rows, out = Path(place) / "rows.json", Path(place) / "out.json"
        rows.write_text(json.dumps(pairs))
        Path(f"{rows}.eot").write_text(str(eot))
        command = [args.peer_python, "-W", "ignore", "-c", PEER, str(args.model), str(rows), str(out)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        if done.returncode:
            sys.exit(f"lm-eval failed:\n{done.stderr[-3000:]}")
        return json.loads(out.read_text())


def accuracies(questions, scores) -> tuple[float, float]:
    it = iter(scores)
    by_sum = by_length = 0
    for question in questions:
        values = [next(it) for _ in question.endings]
        lengths = [len(text) for text in question.endings]
        by_sum += max(range(len(values)), key=values.__getitem__) == question.answer
        normed = [value / length for value, length in zip(values, lengths, strict=True)]
        by_length += max(range(len(values)), key=normed.__getitem__) == question.answer
    return by_sum / len(questions), by_length / len(questions)


if __name__ == "__main__":
    main()
