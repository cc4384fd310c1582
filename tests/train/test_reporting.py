"""Figures for other places, speeds, goodput, and which weights are kept."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from causerie.core import CauserieError, Run, open_run, read_events
from causerie.train import Callback, fit, goodput, make_optimizers, matmul_peak
from causerie.train.checkpoint import folders
from causerie.train.meter import time_shares
from causerie.train.sinks import SINKS, figures_only, open_sinks
from tests.train.tiny import RandomRows, objective, settings, tiny_model, weights_digest


def fake(monkeypatch: pytest.MonkeyPatch, seen: list[tuple[Any, ...]]) -> None:
    """Modules with the few calls of the real ones that the sinks make."""

    class Writer:
        def __init__(self, folder: str) -> None:
            seen.append(("writer", folder))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append(("tensorboard", name, value, step))

        def close(self) -> None:
            seen.append(("tensorboard closed",))

    class WandbRun:
        def log(self, values: dict[str, float]) -> None:
            seen.append(("wandb", values))

        def finish(self) -> None:
            seen.append(("wandb closed",))

    def init(**settings: Any) -> WandbRun:
        seen.append(("wandb init", settings["id"], settings["resume"], settings["mode"]))
        return WandbRun()

    modules: dict[str, dict[str, Any]] = {
        "tensorboard": {},
        "torch.utils.tensorboard": {"SummaryWriter": Writer},
        "wandb": {"init": init},
        "mlflow": {
            "set_tracking_uri": lambda uri: seen.append(("mlflow uri", uri)),
            "set_experiment": lambda name: None,
            "search_runs": lambda **_: [],
            "start_run": lambda run_id, run_name: seen.append(("mlflow run", run_id, run_name)),
            "log_metrics": lambda values, step: seen.append(("mlflow", values, step)),
            "end_run": lambda: seen.append(("mlflow closed",)),
        },
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def test_figures_reach_every_place_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    fake(monkeypatch, seen)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wanted = settings(steps=2, report_to=("tensorboard", "wandb", "mlflow"))
    look = Callback(lambda model, step: {"figure": 7.0, "text": "x"}, "look")
    fit(tiny_model(), objective, RandomRows(), wanted, run, callbacks=[look])
    losses = [row["loss"] for row in read_events(run.path) if row["event"] == "step"]
    assert [row[2] for row in seen if row[:2] == ("tensorboard", "step/loss")] == losses
    assert [row[1]["step/loss"] for row in seen if row[0] == "wandb" and "step/loss" in row[1]] == losses
    assert [row[1]["step.loss"] for row in seen if row[0] == "mlflow" and "step.loss" in row[1]] == losses
    assert ("tensorboard", "look/figure", 7.0, 0) in seen
    assert ("wandb init", run.id, "allow", "offline") in seen
    assert {("tensorboard closed",), ("wandb closed",), ("mlflow closed",)} <= set(seen_last(seen))


def seen_last(seen: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [row for row in seen if row[0].endswith("closed")]


@pytest.mark.parametrize("name", sorted(SINKS))
def test_a_package_that_is_missing_is_named(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CauserieError) as caught:
        open_sinks([name], run)
    assert caught.value.code == "CAU-1008"
    assert name in caught.value.cause


def test_only_finite_numbers_are_figures() -> None:
    assert figures_only({"a": 1, "b": float("nan"), "c": "x", "d": 2.5, "e": None}) == {"a": 1.0, "d": 2.5}


def test_the_peak_is_at_least_what_a_product_of_ours_reaches() -> None:
    peak = matmul_peak(torch.device("cpu"), bf16=False)
    a = torch.randn(256, 256)
    began = time.perf_counter()
    for _ in range(5):
        torch.mm(a, a)
    assert peak > 0.05 * 5 * 2 * 256**3 / (time.perf_counter() - began)


def test_goodput_counts_an_update_and_an_evaluation_once_and_lost_time_against_them(tmp_path: Path) -> None:
    """Of 16 s of two sittings: updates 4 + 4, one of them done twice; an evaluation of 2 s, done twice."""
    look = {"step": 0, "val_loss": 3.0, "evaluation_seconds": 2.0}
    with open_run(tmp_path, "train", "good", "0" * 64, {}) as run:
        rows = [
            ("sitting", 100.0, {}), ("eval", 102.0, look), ("step", 104.0, {"step": 0, "step_seconds": 4.0}),
            ("step", 108.0, {"step": 1, "step_seconds": 4.0}), ("sitting", 500.0, {}), ("eval", 502.0, look),
            ("step", 506.0, {"step": 1, "step_seconds": 4.0}), ("checkpoint", 508.0, {}),
        ]  # fmt: skip
        for event, at, values in rows:
            run.log(event, **{**values, "time": at})
    assert time_shares(run.path) == pytest.approx((8.0 / 16.0, 2.0 / 16.0))
    assert goodput(run.path) == pytest.approx(10.0 / 16.0)
    assert (goodput(tmp_path), time_shares(tmp_path)) == (0.0, (0.0, 0.0))


def test_a_long_evaluation_is_no_lost_time(run: Run) -> None:
    """Most of the run is a slow evaluation: goodput is high all the same, and the share says where the time went."""
    look = Callback(lambda model, step: time.sleep(0.4), "eval")
    result = fit(tiny_model(), objective, RandomRows(), settings(steps=3, checkpoint_every=100), run, callbacks=[look])
    asked = [row for row in read_events(run.path) if row["event"] == "eval"]
    assert [row["step"] for row in asked] == [0, 3]
    assert all(row["evaluation_seconds"] >= 0.4 for row in asked)
    trained = sum(row["step_seconds"] for row in read_events(run.path) if row["event"] == "step")
    looked = sum(row["evaluation_seconds"] for row in asked)
    assert result.evaluation_share < result.goodput <= 1.0
    assert result.evaluation_share / (result.goodput - result.evaluation_share) == pytest.approx(
        looked / trained, rel=0.1
    )


def test_the_best_evaluation_is_kept_and_exported(tmp_path: Path) -> None:
    """Figures by a script: best after six of ten updates. Retention leaves that checkpoint beside the newest two."""
    figures = {0: 9.0, 2: 5.0, 4: 4.0, 6: 1.0, 8: 3.0, 10: 2.0}
    look = Callback(lambda model, step: {"loss": figures[step]}, "eval", every=2, best="loss")
    found = {}
    for export in ("last", "best"):
        with open_run(tmp_path, "train", export, "0" * 64, {}) as run:
            model = tiny_model()
            wanted = settings(steps=10, checkpoint_every=1, keep_checkpoints=2, export=export)
            result = fit(model, objective, RandomRows(), wanted, run, callbacks=[look])
            assert result.best_step == 6
            found[export] = weights_digest(model)
            assert [p.name[-2:] for p in folders(run.path)] == ["10", "09", "06"]
    assert found["last"] != found["best"]
    with open_run(tmp_path, "train", "six", "0" * 64, {}) as run:
        model = tiny_model()
        fit(model, objective, RandomRows(), settings(steps=10, checkpoint_every=6), run)
        from causerie.train.checkpoint import Checkpoints

        checkpoints = Checkpoints(run.path, model, make_optimizers(model, settings()), "random")
        assert checkpoints.load_weights(6)
        assert weights_digest(model) == found["best"]
        assert not checkpoints.load_weights(5)


def test_cautious_decay_shrinks_only_what_the_update_shrinks() -> None:
    """Against the update without decay: weights that moved towards zero lose lr · decay of themselves, others nothing."""
    for optimizer in ("adamw", "muon"):
        moved = []
        for decay in (0.0, 0.5):
            model = tiny_model()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.1)
            wanted = settings(optimizer=optimizer, weight_decay=decay, cautious_decay=True, lr=0.01, matrix_lr=0.02)
            optimizers = make_optimizers(model, wanted)
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            (batch,) = RandomRows().micro_batches(0)
            objective(model, batch).loss_sum.backward()
            optimizers.set_lr(1.0)
            optimizers.step()
            moved.append({name: p.detach() for name, p in model.named_parameters()})
        name = "layers.0.mlp.up_proj.weight"
        lr = 0.02 if optimizer == "muon" else 0.01
        towards_zero = (before[name] - moved[0][name]) * before[name] > 0
        wanted_change = lr * 0.5 * before[name] * towards_zero
        torch.testing.assert_close(moved[0][name] - moved[1][name], wanted_change, atol=1e-6, rtol=1e-3)
        assert 0 < towards_zero.float().mean() < 1
        torch.testing.assert_close(moved[0]["embed_tokens.weight"], moved[1]["embed_tokens.weight"])
