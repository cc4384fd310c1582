"""Other places for a run's figures beside its own `events.jsonl`: TensorBoard, Weights & Biases, MLflow.

None is needed and none is installed with causerie; each is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from causerie.core import Run, need_package


class Sink(Protocol):
    """Takes figures."""

    def log(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """Figures of one event at one step."""
        ...

    def close(self) -> None:
        """Write what is still held."""
        ...


class TensorBoard:
    """Event files in the run's folder, under `tensorboard/`."""

    def __init__(self, run: Run) -> None:
        _need("tensorboard")
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = writer(str(run.path / "tensorboard"))

    def log(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """See `Sink`."""
        for name, value in figures.items():
            self._writer.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """See `Sink`."""
        self._writer.close()


class Wandb:
    """A Weights & Biases run with the id of ours, gone on with after a resume; offline unless WANDB_MODE says else."""

    def __init__(self, run: Run) -> None:
        wandb = _need("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        settings = {"project": "causerie", "id": run.id, "name": run.name, "config": run.config, "mode": mode}
        self._run: Any = wandb.init(**settings, resume="allow", dir=str(run.path))

    def log(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._run.log({"step": step, **{f"{event}/{name}": value for name, value in figures.items()}})

    def close(self) -> None:
        """See `Sink`."""
        self._run.finish()


class Mlflow:
    """An MLflow run of our run's name, gone on with after a resume; at MLFLOW_TRACKING_URI, or in the run's folder."""

    def __init__(self, run: Run) -> None:
        self._mlflow: Any = _need("mlflow")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self._mlflow.set_tracking_uri(f"sqlite:///{run.path / 'mlflow.db'}")
        self._mlflow.set_experiment("causerie")
        named = f"attributes.run_name = '{run.id}'"
        found = self._mlflow.search_runs(experiment_names=["causerie"], filter_string=named, output_format="list")
        self._mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=run.id)

    def log(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._mlflow.log_metrics({f"{event}.{name}": value for name, value in figures.items()}, step=step)

    def close(self) -> None:
        """See `Sink`."""
        self._mlflow.end_run()


SINKS: Final[Mapping[str, Callable[[Run], Sink]]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}
"""Name in `TrainSettings.report_to` → its class."""


def open_sinks(names: Sequence[str], run: Run) -> list[Sink]:
    """The sinks that were asked for.

    Raises:
        CauserieError: CAU-1008 when the package of one is not installed.
    """
    return [SINKS[name](run) for name in names]


def figures_only(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among an event's values."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise need_package(module, "report") from error
