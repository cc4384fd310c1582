from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from causerie.core import CauserieError, Run, open_run
from causerie.train import fit
from causerie.train.checkpoint import TENSORS
from tests.train.tiny import RandomRows, objective, settings, tiny_model, weights_digest


@pytest.mark.slow
def test_killed_at_every_crash_point_the_weights_come_out_the_same(tmp_path: Path) -> None:
    """Slow: some forty runs in one subprocess. No point can be forgotten: a dry run lists them."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    script = [sys.executable, str(Path(__file__).with_name("crash_runs.py")), str(tmp_path)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=240, check=True)
    results = json.loads(done.stdout)
    wanted = {"train.before_checkpoint", "train.tensors_written", "train.checkpoint_written", "train.after_step"}
    wanted |= {"train.checkpoint_deleted", "artifact.before_manifest", "artifact.before_rename"}
    assert wanted <= set(results["points"])
    for name, outcome in results["runs"].items():
        assert outcome["killed"] == signal.SIGKILL, name
        assert outcome["resumed"] == 0, (name, done.stderr[-2000:])
        assert outcome["digest"] == results["unbroken"], name
        assert outcome["left"] == [], name


def _run(workspace: Path, steps: int, name: str = "tiny") -> tuple[str, Run]:
    with open_run(workspace, "train", name, "0" * 64, {}) as run:
        model = tiny_model()
        fit(model, objective, RandomRows(), settings(steps=steps, schedule="wsd", decay_fraction=0.0), run)
        return weights_digest(model), run


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit is flipped anywhere in the newest checkpoint: the one before it is taken, in words."""
    wanted, _ = _run(tmp_path, 9, "unbroken")
    _, run = _run(tmp_path, 6)
    newest = run.path / "checkpoints" / "step-00000006"
    for name in (TENSORS, "state.json"):
        path = newest / name
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[random.Random(0).randrange(len(whole))] ^= 1
        path.write_bytes(damaged)
    digest, _ = _run(tmp_path, 9)
    assert digest == wanted
    said = capsys.readouterr().err
    assert "step-00000006 is damaged" in said
    assert "going on from step 3" in said


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    _, run = _run(tmp_path, 12)
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == ["step-00000009", "step-00000012"]


def test_a_checkpoint_of_other_data_or_another_model_is_refused(tmp_path: Path) -> None:
    _run(tmp_path, 3)
    with open_run(tmp_path, "train", "tiny", "0" * 64, {}) as run:
        with pytest.raises(CauserieError, match="other data") as caught:
            fit(tiny_model(), objective, RandomRows(fingerprint="else"), settings(), run)
        assert caught.value.code == "CAU-4004"
        with pytest.raises(CauserieError, match="does not fit") as caught:
            fit(tiny_model(n_embd=24), objective, RandomRows(), settings(), run)
        assert caught.value.code == "CAU-4004"
        assert "step-00000003" in caught.value.where
        assert caught.value.fix


def test_an_adapters_checkpoint_holds_only_the_adapter(tmp_path: Path) -> None:
    from safetensors import safe_open

    from causerie.model import add_lora

    model = tiny_model()
    add_lora(model, 2, 4.0)
    with open_run(tmp_path, "train", "adapter", "0" * 64, {}) as run:
        fit(model, objective, RandomRows(), settings(steps=2, optimizer="adamw"), run)
    with safe_open(run.path / "checkpoints" / "step-00000002" / TENSORS, "pt") as file:
        names = {name.rpartition(".")[2] for name in file.keys() if name.startswith("model.")}  # noqa: SIM118
    assert names == {"lora_A", "lora_B"}
