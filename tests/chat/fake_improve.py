"""Stands in for `python -m causerie` in the tests: one turn of the loop that trains nothing.

The file `improve-verdict` in the workspace says how it ends: "promoted" (default), "refused", "fails" or "waits".
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from causerie.core import CauserieError, Stopped, graceful_stop, open_run, write_artifact
from causerie.hub import get_version, promote, refuse, register
from causerie.store import open_store

ROWS = [
    {
        "metric": "margin_per_token", "incumbent": 0.01, "candidate": 0.064, "difference": 0.054, "low": 0.012,
        "high": 0.097, "margin": 0.0, "floor": 0.0, "ceiling": None, "promise": True, "passed": True, "items": 96,
        "meaning": "preference for what people chose (nats per token)",
    },
    {
        "metric": "nats_per_token", "incumbent": 2.081, "candidate": 2.095, "difference": 0.014, "low": 0.002,
        "high": 0.026, "margin": 0.05, "floor": None, "ceiling": 0.05, "promise": False, "passed": True, "items": 48,
        "meaning": "loss on held-out human answers (nats per token)",
    },
    {
        "metric": "ended", "incumbent": 1.0, "candidate": 0.958, "difference": -0.042, "low": -0.125, "high": 0.0,
        "margin": -0.15, "floor": -0.15, "ceiling": None, "promise": False, "passed": True, "items": 24,
        "meaning": "share of answers that end by themselves",
    },
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["improve"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    wish = asked.workspace / "improve-verdict"
    ending = wish.read_text() if wish.exists() else "promoted"
    if ending == "fails":
        error = CauserieError("CAU-5101", "3 votes to learn from", where="feedback", fix="vote on more answers")
        print(error, file=sys.stderr)
        print(json.dumps({"error": error.as_dict()}))
        sys.exit(2)
    with graceful_stop() as stop, open_run(asked.workspace, "improve", asked.model, "c" * 64, {}) as run:
        run.log("votes", pairs=40)
        with open_run(asked.workspace, "dpo", asked.model, "d" * 64, {}) as training:
            run.log("stage", name="train", text="dpo on 40 votes", run=training.id)
            for step in range(1, 31):
                loss = float("nan") if step == 3 else 0.69 - 0.006 * step
                training.log("step", step=step, loss=loss, seconds=step * 0.02, seconds_left=(30 - step) * 0.02)
                time.sleep(0.02)
            while ending == "waits":
                if stop():
                    raise Stopped("asked to stop")
                time.sleep(0.02)
        run.log("stage", name="evaluate", text="candidate and incumbent answer the same prompts")
        run.log("gate", rows=ROWS)
        version = decide(asked.workspace, asked.model, ending == "promoted")
        why = "promoted: preference improved" if ending == "promoted" else "refused: not enough to tell"
        run.log("verdict", promoted=ending == "promoted", why=why, version=version)


def decide(workspace: Path, model: str, good: bool) -> str:
    """Register a copy of the incumbent as candidate and settle it; returns the version that answers."""
    with open_store(workspace) as store:
        incumbent = get_version(store, model)
        with write_artifact(workspace, "preferences", "preferences", "e" * 64, config={"signals": ["s1", "s2"]}):
            pass
        inputs = {"base": incumbent.key, "preferences": "e" * 64}
        with write_artifact(workspace, "model", model, "f5" * 32, inputs=inputs) as draft:
            shutil.copytree(incumbent.path(workspace), draft.path, dirs_exist_ok=True)
            (draft.path / "manifest.json").unlink()
        assert draft.artifact is not None
        candidate = register(store, workspace, model, draft.artifact, parents=[incumbent.ref])
        if good:
            return promote(store, candidate.ref).ref
        refuse(store, candidate.ref)
        return incumbent.ref


try:
    main()
except Stopped:
    sys.exit(75)
