"""The faults of a training run, and what must come of each: nothing lost, nothing silent, an error that names the file.

| fault | test |
|---|---|
| F1 kill -9 at every named point of a checkpoint | `test_checkpoint.test_killed_at_every_crash_point...` |
| F2 kill -9 at random times | `test_f2_...` |
| F3 kill -9 in every stage of data preparation | `tests/data/test_build.test_killed_at_any_point...` (build), `test_damaged_inputs.test_f3_...` (pack) |
| F4 disk full | checkpoint: `test_f4_...`; shards, tokenizer, model: `test_damaged_inputs.test_f4_...`; database: `tests/store` |
| F5 one flipped bit | `test_f5_...`; any artifact: `tests/core/test_artifact` |
| F6 truncation | checkpoint: `test_f6_f7_...`; shards, index, tokenizer, weights: `test_damaged_inputs.test_f6_...`; WARC, JSONL: `tests/data/test_dirt` |
| F7 empty or garbage pointer | there is none; manifests: `test_f6_f7_...` |
| F8 NaN in loss, in the gradient only | `test_f8_...`; passing and lasting ones: `test_loop.test_a_passing_nan...`, `test_lasting_nan...` |
| F9 a gradient miscounted | replay: `test_f9_...`; across processes: `test_world.test_exact_parts...` (digests) |
| F10 SIGTERM, SIGINT, SIGTERM twice | `test_f10_...` |
| F11 1 → 2 → 4 → 1 processes | `test_world.test_exact_parts...`, `test_sharded_checkpoints...` |
| F12 a process killed or frozen in a collective | `test_world.test_a_lost_process...` |
| F13 two trainers on one run | `test_f13_...` |
| F14 changed data, tokenizer, settings | `test_f14_...` |
| F15 the spike rule across a resume | `test_f15_...` |
| F16 clock jump, read-only, missing folder, no inodes left | `test_f16_...`, `test_damaged_inputs.test_f16_...` |
"""

from __future__ import annotations

import errno
import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError, Run, open_run, read_events
from causerie.train import Batch, LossParts, fit
from causerie.train.checkpoint import TENSORS, folders
from causerie.train.health import FEWEST, SpikeRule
from causerie.train.plot import loss_curve
from tests.train.tiny import RandomRows, objective, settings, tiny_model, weights_digest
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]


def run_to(workspace: Path, steps: int, name: str = "tiny", loss: Any = objective, **changes: Any) -> tuple[str, Path]:
    """A run of so many updates, checkpoints every three; its weights' digest and its folder."""
    with open_run(workspace, "train", name, "0" * 64, {"batch_size": 4}) as run:
        model = tiny_model()
        wanted = settings(steps=steps, schedule="wsd", decay_fraction=0.0, warmup=0, **changes)
        fit(model, loss, RandomRows(), wanted, run)
        return weights_digest(model), run.path


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in loss_curve(folder)]


@pytest.mark.slow
def test_f2_killed_at_random_times_the_log_and_the_weights_are_those_of_an_unbroken_run(tmp_path: Path) -> None:
    """Slow: a subprocess that forks six sittings. The loss of every update is bit for bit the unbroken run's."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(Path(__file__).with_name("punished_run.py")), str(tmp_path)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=240, check=True)
    found = json.loads(done.stdout)
    assert found["kills"] >= 3
    assert found["digest"] == found["unbroken_digest"]
    assert found["losses"] == found["unbroken_losses"]
    assert found["order"] == sorted(found["order"])  # data are a function of the step: each seen once, in order


def test_f4_a_full_disk_keeps_the_checkpoint_before_and_names_the_file(tmp_path: Path) -> None:
    """Files are limited to half a checkpoint; with room again the run goes on to the unbroken run's weights."""
    wanted, _ = run_to(tmp_path, 9, "unbroken")
    _, folder = run_to(tmp_path, 3)
    size = (folders(folder)[0] / TENSORS).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        with pytest.raises(CauserieError) as caught:
            run_to(tmp_path, 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert caught.value.code == "CAU-1007"
    assert "step-00000006" in caught.value.where
    assert "MB free" in caught.value.cause
    assert caught.value.exit_status == 2
    assert [path.name for path in folders(folder)] == ["step-00000003"]
    assert run_to(tmp_path, 9)[0] == wanted


@pytest.mark.parametrize("seed", range(4))
def test_f5_one_flipped_bit_anywhere_is_found_and_the_file_named(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, _ = run_to(tmp_path, 9, "unbroken")
    _, folder = run_to(tmp_path, 6)
    dice = random.Random(seed)
    for path in sorted(p for p in folders(folder)[0].iterdir() if p.is_file() and p.name != "manifest.json"):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        with open_run(tmp_path, "train", "tiny", "0" * 64, {"batch_size": 4}) as run:
            fit(tiny_model(), objective, RandomRows(), settings(steps=3, warmup=0), run)
        assert path.name in capsys.readouterr().err
        path.write_bytes(whole)
    path.write_bytes(damaged)
    assert run_to(tmp_path, 9)[0] == wanted


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "no manifest", "manifest garbage"])
def test_f6_f7_a_truncated_or_garbage_checkpoint_is_passed_over(damage: str, tmp_path: Path) -> None:
    wanted, _ = run_to(tmp_path, 9, "unbroken")
    _, folder = run_to(tmp_path, 6)
    newest = folders(folder)[0]
    tensors, manifest = newest / TENSORS, newest / "manifest.json"
    if damage == "truncated":
        os.truncate(tensors, random.Random(1).randrange(1, tensors.stat().st_size))
    elif damage == "empty":
        tensors.write_bytes(b"")
    elif damage == "garbage":
        tensors.write_bytes(b"\x00\xff garbage" * 100)
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(b"")
    assert run_to(tmp_path, 9)[0] == wanted
    assert [row["step"] for row in read_events(folder) if row["event"] == "resume"] == [3]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_f8_a_nan_does_not_poison_the_spike_rules_window(tmp_path: Path, where: str) -> None:
    """A lasting NaN at one step is skipped and counted; none of the good updates after it is."""

    def broken(model: Any, batch: Batch) -> LossParts:
        parts = objective(model, batch)
        if int(batch["ids"].sum()) == bad:
            nothing = (parts.loss_sum - parts.loss_sum.detach()).sqrt()  # 0, with an infinite gradient
            loss = parts.loss_sum * float("nan") if where == "loss" else parts.loss_sum + nothing
            assert math.isfinite(float(loss.detach())) == (where == "gradient")
            return parts._replace(loss_sum=loss)
        return parts

    bad = int(RandomRows().micro_batches(70)[0]["ids"].sum())
    with open_run(tmp_path, "train", "nan", "0" * 64, {}) as run:
        result = fit(tiny_model(), broken, RandomRows(), settings(steps=90, checkpoint_every=50), run)
    assert result.bad_steps == sum(int(RandomRows().micro_batches(step)[0]["ids"].sum()) == bad for step in range(90))
    assert result.spikes == 0
    assert result.steps == 90


def test_f8_the_rules_window_takes_finite_values_only() -> None:
    rule = SpikeRule(6.0)
    for step in range(200):
        value = float("nan") if step % 50 == 49 else 2.0 + 0.01 * (step % 7)
        assert not rule.is_spike(value, value)
    assert all(value == value for value in rule.losses)
    assert rule.is_spike(3.0, 2.0)
    assert rule.is_spike(2.0, 9.0)
    assert not SpikeRule(0.0, [2.0] * 128, [2.0] * 128).is_spike(99.0, 99.0)
    assert not SpikeRule(6.0, [2.0] * (FEWEST - 1), [2.0] * (FEWEST - 1)).is_spike(99.0, 99.0)


def test_f8_a_new_level_is_got_used_to() -> None:
    rule = SpikeRule(6.0, [2.0] * 128, [1.0] * 128)
    skipped = [rule.is_spike(3.0, 1.0) for _ in range(40)]
    assert skipped[0]
    assert not skipped[-1]


def test_f9_a_flipped_bit_in_a_gradient_is_found_by_replay(tmp_path: Path) -> None:
    """One wrong computation is noticed and replaced; a machine that never computes the same twice is stopped."""
    wanted, _ = run_to(tmp_path, 6, "unbroken")

    def flipping(times: int) -> Any:
        calls = [0]

        def run(model: Any, batch: Batch) -> LossParts:
            calls[0] += 1
            parts = objective(model, batch)
            if 5 <= calls[0] < 5 + times:
                return parts._replace(loss_sum=parts.loss_sum * (1 + 1e-3 * calls[0]))
            return parts

        return run

    digest, folder = run_to(tmp_path, 6, "once", flipping(1), replay_every=1)
    assert digest == wanted
    assert [row["step"] for row in read_events(folder) if row["event"] == "miscount"] == [2]
    with pytest.raises(CauserieError) as caught:
        run_to(tmp_path, 6, "always", flipping(99), replay_every=1)
    assert caught.value.code == "CAU-4008"


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_f10_a_stop_loses_no_update(tmp_path: Path, signals: list[int]) -> None:
    """Slow: a training command in a subprocess, stopped from outside: status 75 and a checkpoint of the last update."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(Path(__file__).with_name("endless_run.py")), str(tmp_path)]
    process = subprocess.Popen(script, env=environment, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "runs" / "train-endless-00000000"
    wait_for(lambda: len(read_events(folder)) >= 8)
    for number in signals:
        process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    if len(signals) == 1:
        assert process.returncode == 75, said
        last = max(row["step"] for row in read_events(folder) if row["event"] == "step")
        assert folders(folder)[0].name == f"step-{last + 1:08d}"
    else:
        assert process.returncode != 0
        assert any((path / "manifest.json").exists() for path in folders(folder)) or not folders(folder)


def test_f13_a_second_trainer_on_the_same_run_is_refused_with_the_holders_pid(tmp_path: Path, run: Run) -> None:
    with pytest.raises(CauserieError) as caught, open_run(tmp_path, "train", "tiny", "0" * 64, {}):
        pass
    assert caught.value.code == "CAU-1004"
    assert str(os.getpid()) in caught.value.cause


def _stopped_run(
    workspace: Path, fingerprint: str = "random", inputs: dict[str, str] | None = None, **config: Any
) -> Path:
    with open_run(workspace, "train", "first", "1" * 64, {"batch_size": 4, **config}) as run:
        fit(
            tiny_model(), objective, RandomRows(fingerprint=fingerprint), settings(steps=3, warmup=0), run,
            inputs={"shards": "a" * 64, "tokenizer": "b" * 64, **(inputs or {})},
        )  # fmt: skip
        return run.path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": "other"}, "data"),
        ({"inputs": {"tokenizer": "c" * 64}}, "tokenizer: cccccccc → bbbbbbbb"),
        ({"lr": 0.5}, "lr: 0.5 → None"),
        ({"steps": 77}, ""),
    ],
)
def test_f14_a_run_resumed_with_something_changed_is_refused_and_the_flag_named(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    """Another length is no change; data, tokenizer and learning rate are."""
    first = _stopped_run(tmp_path, **change)

    def go_on(allow: bool) -> Path:
        with open_run(tmp_path, "train", f"second{allow}", "2" * 64, {"batch_size": 4}) as run:
            wanted = settings(steps=6, warmup=0, resume=first, allow_changed=allow)
            inputs = {"shards": "a" * 64, "tokenizer": "b" * 64}
            fit(tiny_model(), objective, RandomRows(), wanted, run, inputs=inputs)
            return run.path

    if named:
        with pytest.raises(CauserieError) as caught:
            go_on(allow=False)
        assert caught.value.code == "CAU-4004"
        assert named in caught.value.cause
        assert "--allow-changed" in caught.value.fix
    folder = go_on(allow=bool(named))
    assert [row["step"] for row in read_events(folder) if row["event"] == "step"] == [3, 4, 5]


def test_f14_a_run_without_checkpoints_cannot_be_resumed(tmp_path: Path, run: Run) -> None:
    with pytest.raises(CauserieError) as caught:
        fit(tiny_model(), objective, RandomRows(), settings(resume=tmp_path / "nothing"), run)
    assert caught.value.code == "CAU-4007"


def test_f15_a_resumed_run_skips_the_same_spikes(tmp_path: Path) -> None:
    """The window is part of the checkpoint: a break shortly before the spike changes nothing."""

    def spiky(model: Any, batch: Batch) -> LossParts:
        parts = objective(model, batch)
        return parts._replace(loss_sum=parts.loss_sum * 20) if int(batch["ids"].sum()) == spike else parts

    spike = int(RandomRows().micro_batches(75)[0]["ids"].sum())
    wanted, unbroken = run_to(tmp_path, 80, "unbroken", spiky, checkpoint_every=70)
    run_to(tmp_path, 70, "broken", spiky, checkpoint_every=70)
    found, broken = run_to(tmp_path, 80, "broken", spiky, checkpoint_every=70)
    skipped = [[row["step"] for row in read_events(f) if row["event"] == "spike"] for f in (unbroken, broken)]
    assert skipped[0] == skipped[1]
    assert 75 in skipped[0]
    assert found == wanted


def test_f16_a_folder_that_cannot_be_written_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root a read-only folder is writable: the system's answer is put in its place."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    run_to(tmp_path, 3)
    monkeypatch.setattr("causerie.train.checkpoint.save_tensors", refuse)
    with pytest.raises(CauserieError) as caught:
        run_to(tmp_path, 9)
    assert caught.value.code == "CAU-1007"
    assert "Read-only" in caught.value.cause
    assert caught.value.fix


def test_f16_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = run_to(tmp_path, 6, "unbroken")
    hours = iter(range(10**6))
    monkeypatch.setattr("causerie.core.run.time.time", lambda: 1.7e9 - 3600.0 * next(hours))
    digest, folder = run_to(tmp_path, 6, "jumping")
    assert digest == wanted
    assert len(losses(folder)) == 6


def test_checkpoints_say_what_made_them(tmp_path: Path) -> None:
    _, folder = run_to(tmp_path, 3)
    state = json.loads((folders(folder)[0] / "state.json").read_text())
    assert state["machine"]["threads"] == torch.get_num_threads()
    assert state["machine"]["torch"] == torch.__version__
    assert {"step", "tokens", "spike_losses", "best_step"} <= set(state["progress"])
    assert state["identity"]["settings"] == {"batch_size": 4}
    manifest = json.loads((folders(folder)[0] / "manifest.json").read_text())
    assert {"causerie", "torch", "python"} <= set(manifest["versions"])
