"""Each sink with its real package: a short run, then the figures read back by the package's own reader."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from causerie.core import Run, open_run, read_events
from causerie.train import Callback, fit
from tests.train.tiny import RandomRows, objective, settings, tiny_model


def trained(run: Run, sink: str, steps: int = 3) -> list[float]:
    """A run that reports to a sink; the losses that its own events hold."""
    look = Callback(lambda model, step: {"figure": 7.0 + step, "text": "left out"}, "eval")
    wanted = settings(steps=steps, report_to=(sink,))
    fit(tiny_model(), objective, RandomRows(), wanted, run, callbacks=[look])
    return [row["loss"] for row in read_events(run.path) if row["event"] == "step"]


def test_tensorboard_reads_what_was_written(run: Run) -> None:
    pytest.importorskip("tensorboard")
    losses = trained(run, "tensorboard")
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    assert [(e.step, pytest.approx(e.value, abs=1e-5)) for e in found.Scalars("step/loss")] == list(enumerate(losses))
    assert [(e.step, e.value) for e in found.Scalars("eval/figure")] == [(0, 7.0), (3, 10.0)]
    assert not any("text" in tag for tag in found.Tags()["scalars"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_mlflow_reads_what_was_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow: MLflow makes its database by some forty migrations."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trained(run, "mlflow", steps=2)
    trained(run, "mlflow")  # goes on with the same MLflow run
    losses = [row["loss"] for row in read_events(run.path) if row["event"] == "step"]
    client = mlflow.MlflowClient(f"sqlite:///{run.path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("causerie")
    (made,) = client.search_runs([experiment.experiment_id])
    assert (made.info.run_name, made.info.status) == (run.id, "FINISHED")
    history = client.get_metric_history(made.info.run_id, "step.loss")
    assert [(row.step, pytest.approx(row.value)) for row in history] == list(enumerate(losses))
    assert client.get_metric_history(made.info.run_id, "eval.figure")[-1].value == 10.0


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_its_records_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are on disk under the run's own id, and nothing was sent."""
    pytest.importorskip("wandb")
    for name, value in {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DISABLE_GIT": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with open_run(tmp_path, "train", "tiny", "0" * 64, {"lr": 0.25}) as run:
        trained(run, "wandb")
    (record,) = (run.path / "wandb").glob("offline-run-*/run-*.wandb")
    content = record.read_bytes()
    assert run.id.encode() in content
    for word in (b"step/loss", b"step/lr", b"eval/figure", b"0.25"):
        assert word in content, word
    assert b"left out" not in content


def test_a_sink_is_closed_when_the_run_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures written before an error are not lost in a buffer."""
    pytest.importorskip("tensorboard")

    def fails(model: object, step: int) -> dict[str, float]:
        if step:
            raise ValueError("the callback failed")
        return {"figure": 1.0}

    with pytest.raises(ValueError, match="callback"):
        fit(
            tiny_model(), objective, RandomRows(), settings(steps=4, report_to=("tensorboard",)), run,
            callbacks=[Callback(fails, "eval", every=2)],
        )  # fmt: skip
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    assert [e.step for e in found.Scalars("step/loss")] == [0, 1]
