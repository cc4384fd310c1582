"""Training: settings, the one loop `fit`, checkpoints, optimisers, and the objectives `pretrain` and `sft`."""

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.train.config import MlmConfig, PretrainConfig, SftConfig, TrainSettings, bad_setting
from causerie.train.errors import ERRORS

if TYPE_CHECKING:
    from causerie.train.artifacts import is_adapter, open_output, output_folder, save_trained
    from causerie.train.checkpoint import delete_checkpoints
    from causerie.train.finetuning import sft
    from causerie.train.loop import fit, undisturbed
    from causerie.train.machine import autocast, pick_device, uses_bf16
    from causerie.train.masked_training import mlm
    from causerie.train.meter import CONVENTION, goodput, matmul_peak
    from causerie.train.objective import Batch, Batches, Callback, FitResult, LossParts, Objective
    from causerie.train.optim import Optimizers, make_optimizers
    from causerie.train.plot import loss_curve, plot_loss
    from causerie.train.pretraining import pretrain
    from causerie.train.rules import batch_tokens, horizon
    from causerie.train.snapshots import keep_snapshots
    from causerie.train.world import World, open_world

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Batch", "Batches", "Callback", "FitResult", "LossParts", "Objective"), "objective"),
        **dict.fromkeys(("CONVENTION", "goodput", "matmul_peak"), "meter"),
        **dict.fromkeys(("World", "open_world"), "world"),
        **dict.fromkeys(("batch_tokens", "horizon"), "rules"),
        **dict.fromkeys(("fit", "undisturbed"), "loop"),
        **dict.fromkeys(("is_adapter", "open_output", "output_folder", "save_trained"), "artifacts"),
        **dict.fromkeys(("autocast", "pick_device", "uses_bf16"), "machine"),
        **dict.fromkeys(("Optimizers", "make_optimizers"), "optim"),
        **dict.fromkeys(("loss_curve", "plot_loss"), "plot"),
        "delete_checkpoints": "checkpoint",
        "keep_snapshots": "snapshots",
        "mlm": "masked_training",
        "pretrain": "pretraining",
        "sft": "finetuning",
    },
)

__all__ = [
    "CONVENTION",
    "ERRORS",
    "Batch",
    "Batches",
    "Callback",
    "FitResult",
    "LossParts",
    "MlmConfig",
    "Objective",
    "Optimizers",
    "PretrainConfig",
    "SftConfig",
    "TrainSettings",
    "World",
    "autocast",
    "bad_setting",
    "batch_tokens",
    "delete_checkpoints",
    "fit",
    "goodput",
    "horizon",
    "is_adapter",
    "keep_snapshots",
    "loss_curve",
    "make_optimizers",
    "matmul_peak",
    "mlm",
    "open_output",
    "open_world",
    "output_folder",
    "pick_device",
    "plot_loss",
    "pretrain",
    "save_trained",
    "sft",
    "undisturbed",
    "uses_bf16",
]
