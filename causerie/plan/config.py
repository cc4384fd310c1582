"""What can be set about the planning commands: one dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class CountConfig:
    """`plan count` and `plan memory`: what a model has and costs."""

    model: str | None = None
    """A named model (`plan models` lists them), a model folder or its config.json; None: the shape of `depth`."""
    depth: int = 4
    """The dial of our own series."""
    vocab_size: int = 8192
    """Vocabulary of the dialled shape."""
    seq_len: int | None = None
    """Context; None for the longest the model is meant for."""
    batch_size: int = 1
    """Sequences per step, for the memory of training."""
    recompute: bool = False
    """Count activations as if they were computed again in the backward pass."""


@dataclass(frozen=True)
class FitConfig:
    """`plan fit`: a scaling law from a table of runs."""

    runs: Path
    """CSV (with a header) or JSONL; one run a row."""
    out: Path | None = None
    """JSON file for the fit; None: only shown."""
    n_column: str = "N"
    """Column of parameters; say in `counting` what counts as one."""
    d_column: str = "D"
    """Column of training tokens."""
    loss_column: str = "loss"
    """Column of final losses."""
    counting: str = "as in the table"
    """How N was counted; kept with the fit, since half of a law is its convention."""
    tied: bool = False
    """One exponent for both terms (Gadre et al.), for few runs."""
    drop_highest: int = 0
    """Runs of highest loss to leave out; they are listed with the fit."""
    min_tokens_per_param: float = 0.0
    """Leave out runs with fewer tokens per parameter; listed too."""
    skip_bad: bool = False
    """Leave out, and list, rows that cannot be used, instead of refusing the table."""
    bootstrap: int = 200
    """Resamplings for the intervals."""
    seed: int = 0
    """Seed of the resampling."""


@dataclass(frozen=True)
class PredictConfig:
    """`plan predict`: a dated, signed prediction, written before the run."""

    law: Path
    """A fit written by `plan fit --out`."""
    out: Path | None = None
    """JSON file for the prediction; never overwritten. None: only shown."""
    params: float | None = None
    """Parameters of the planned model, counted as in the fit."""
    tokens: float | None = None
    """Tokens of the planned run."""
    flops: float | None = None
    """A budget instead of `params` and `tokens`: the best split is predicted."""
    level: float = 0.9
    """Level of the interval."""
    task: Path | None = None
    """A curve written by `plan task --out`: the task's error is predicted too."""
    note: str = ""
    """What is going to be run."""


@dataclass(frozen=True)
class ScoreConfig:
    """`plan score`: a prediction against what was measured; the score is added to its file."""

    prediction: Path
    """A file written by `plan predict --out`."""
    measured: float | None = None
    """The measured loss; or give `model`."""
    model: Path | None = None
    """Artifact folder of the run's model: its metric is the measured loss, its dates tell what came first."""
    metric: str = "val_loss_after"
    """Which metric of the model's manifest."""


@dataclass(frozen=True)
class FrontierConfig:
    """`plan frontier`: what budgets buy, and the best model when inference is paid too."""

    law: Path
    """A fit written by `plan fit --out`."""
    flops: tuple[float, ...] = (1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24)
    """Training budgets."""
    tokens_per_param: float | None = None
    """Also what each budget buys at this ratio (over-training)."""
    inference_tokens: float | None = None
    """Tokens to be served: also the cheapest model of each frontier loss with them paid."""


@dataclass(frozen=True)
class TaskConfig:
    """`plan task`: a curve from loss to a task's error."""

    runs: Path
    """CSV with losses and accuracies, one run a row."""
    accuracy_columns: tuple[str, ...]
    """Columns of accuracy, averaged; shares from 0 to 1."""
    loss_column: str = "loss"
    """Column of losses."""
    out: Path | None = None
    """JSON file for the curve; None: only shown."""
    name: str = "task"
    """What the curve is called."""
    bootstrap: int = 200
    """Resamplings for the interval."""


@dataclass(frozen=True)
class LayoutConfig:
    """`plan layout`: a model on a number of devices: given, or the best that is found."""

    model: str
    """A named model, a model folder or its config.json."""
    hardware: str = "h100-80gb"
    """A row of the hardware table."""
    devices: int = 64
    """Devices in all."""
    global_batch: int = 1024
    """Sequences in an update."""
    seq_len: int = 4096
    """Tokens in a sequence."""
    data: int | None = None
    """Replicas. With none of the five sizes given, the best layout is searched."""
    tensor: int | None = None
    """Devices that share each matrix."""
    pipeline: int | None = None
    """Stages of layers."""
    context: int | None = None
    """Devices that share a sequence."""
    expert: int | None = None
    """Devices that hold different experts."""
    micro_batch: int = 1
    """Sequences a device works on at once, in a given layout."""
    interleave: int = 1
    """Chunks of layers a stage holds, in a given layout."""
    recompute: Literal["none", "selective", "full"] = "selective"
    """What is computed again, in a given layout."""
    shard: Literal["none", "optimizer", "full"] = "optimizer"
    """What is spread over data, in a given layout."""
    precision: Literal["bf16", "fp8"] = "bf16"
    """Of the products of matrices."""
    tokens: float | None = None
    """Tokens of the whole run: days, failures, energy and price are counted."""
    dollars: float | None = None
    """Price of a device for an hour; None: the table's."""
    picture: Path | None = None
    """PNG or SVG file of the layout and its memory."""


@dataclass(frozen=True)
class DryrunConfig:
    """`plan dryrun`: the program of one rank run with fake tensors, its bytes and messages counted."""

    model: str = "depth:8"
    """A named dense model, a model folder, or `depth:N` of our own series."""
    data: int = 2
    """Replicas over which state is sharded (FSDP2)."""
    tensor: int = 2
    """Devices that share each matrix."""
    pipeline: int = 1
    """Stages of layers."""
    stage: int = 0
    """The stage that is run."""
    micro_batch: int = 1
    """Sequences of a micro-batch."""
    micro_batches: int = 2
    """Micro-batches of the update."""
    seq_len: int = 512
    """Tokens in a sequence."""
    layers: int | None = None
    """Run only so many layers of the stage; counts are checked for those."""


@dataclass(frozen=True)
class GapConfig:
    """`plan gap`: how much compute one model is behind another."""

    a: str
    """Model A: its artifact folder, or its loss on the shared text."""
    b: str
    """Model B: its artifact folder, or its loss on the same text, in the same unit."""
    law: Path
    """A fit written by `plan fit --out`, in the losses' unit."""
    metric: str = "val_loss_after"
    """Which metric of a folder's manifest is the loss; both models must have been measured on the same shards."""
    a_flops: float | None = None
    """FLOPs that A's training took, for its efficiency beside the frontier; a folder says it itself."""
    level: float = 0.9
    """Level of the intervals."""


@dataclass(frozen=True)
class LadderConfig:
    """`plan ladder`: train a series of small models, fit, predict the large one, train it, score."""

    shards: Path
    """Artifact folder of token shards (`data pack`)."""
    tokenizer: Path
    """Artifact folder of the tokenizer the shards were made with."""
    rungs: tuple[str, ...] = (
        "3x32:1000000", "3x32:2000000", "3x32:4000000", "3x48:1000000", "3x48:2000000", "3x48:4000000",
        "3x64:1000000", "3x64:2000000", "3x64:4000000", "3x96:1000000", "3x96:2000000", "3x96:3000000",
        "3x112:1000000", "3x112:2000000",
    )  # fmt: skip
    """The series: LAYERSxWIDTH:TOKENS."""
    target: str = "3x160:3000000"
    """The large run that is predicted."""
    name: str = "ladder"
    """Name of the series; runs are called NAME-RUNG."""
    prediction: Path = Path("prediction.json")
    """File of the prediction, written before the large run begins."""
    tied: bool = False
    """One exponent for both terms of the law."""
    stop_before_target: bool = False
    """End after the prediction is written."""
    batch_size: int = 8
    """Rows per update, the same for every run."""
    seq_len: int = 128
    """Tokens per row."""
    eval_tokens: int = 131_072
    """Validation tokens."""
    bootstrap: int = 400
    """Resamplings for the interval."""
    seed: int = 0
    """Seed of every run."""


@dataclass(frozen=True)
class PictureConfig:
    """`plan picture`: loss against compute with frontier, intervals and runs."""

    law: Path
    """A fit written by `plan fit --out`."""
    out: Path
    """PNG or SVG file; a JSON file of the same name holds the points for the page."""
    runs: Path | None = None
    """CSV or JSONL of runs with N, D, loss."""
    predictions: tuple[Path, ...] = ()
    """Predictions to draw, with their scores."""


@dataclass(frozen=True)
class PlanConfig:
    """`plan write`: a complete plan of a model as Markdown and JSON."""

    model: str
    """A named model."""
    out: Path
    """Markdown file; a JSON file and pictures go beside it."""
    hardware: str = "h100-80gb"
    """A row of the hardware table."""
    devices: int = 4096
    """Devices in all."""
    tokens: float = 10e12
    """Tokens of the run."""
    global_batch: int = 2048
    """Sequences in an update."""
    seq_len: int = 8192
    """Tokens in a sequence."""
    title: str = ""
    """Title of the document; None: from the name."""
