"""What can be set about a training run: the fields every objective shares, and those of `pretrain` and `sft`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from causerie.core import CauserieError


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of the one loop, shared by every objective. A run ends at the first of its limits that is reached."""

    name: str = "model"
    """Name of the artifact that is made."""
    out: Path | None = None
    """Folder to write the artifact to; without it, the workspace."""
    steps: int | None = None
    """Limit: updates of the weights."""
    minutes: float | None = None
    """Limit: minutes of wall-clock time, compilation included. Such a run depends on the machine's speed."""
    tokens: int | None = None
    """Limit: tokens trained on."""
    batch_size: int = 16
    """Rows per update."""
    micro_batch: int = 0
    """Rows per forward and backward pass; 0 means the whole batch. Changes memory, not the result."""
    seq_len: int = 256
    """Tokens per row."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the matrices inside the blocks with AdamW for everything else, or AdamW for all."""
    lr: float | None = None
    """Peak learning rate of AdamW; without it, a rule by model size (`default_lr`)."""
    lr_scale: float = 1.0
    """Multiplies AdamW's peak learning rate, given or by rule, in fine-tuning."""
    matrix_lr: float | None = None
    """Peak learning rate of Muon; without it, a rule by model size (`default_matrix_lr`)."""
    schedule: Literal["wsd", "cosine", "linear"] = "wsd"
    """Shape of the learning rate after warm-up: flat then linear decay, half a cosine, or linear decay."""
    warmup: int = 20
    """Updates of linear warm-up, at most a tenth of the run where its length in steps is known."""
    decay_fraction: float = 0.5
    """Share of the run that `wsd` spends decaying."""
    final_lr: float = 0.05
    """Learning rate at the end as a share of the peak."""
    weight_decay: float = 0.05
    """Decoupled weight decay of the matrices, times the learning rate; embeddings and gains have none."""
    cautious_decay: bool = False
    """Decay only the weights that the update shrinks too (arXiv:2411.16085, as in NorMuon's cautious decay)."""
    grad_clip: float = 1.0
    """Largest norm of the mean gradient; 0 turns clipping off."""
    seed: int = 0
    """Seed of weights, data order and everything else that is random."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the model with torch.compile; `auto` does so when the run is long enough to win back the warm-up."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the matrix products; `auto` is bf16 where the processor has it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a GPU if there is one."""
    spike_sigmas: float = 6.0
    """Skip an update whose loss or gradient norm lies this many deviations above the last 128; 0 means never."""
    replay_every: int = 0
    """Every so many updates, compute one twice and compare the bits: finds hardware that miscounts. 0 means never."""
    exact_parts: int = 0
    """Sum the gradients of this many parts of a batch (a power of two) in a fixed tree, so that 1, 2 or 4 processes
    give the same bits; 0 adds micro-batches in turn, and shards the model when there are several processes."""
    tensor_parallel: int = 1
    """Processes that share each matrix product, of those that torchrun started; the rest share the model's weights."""
    checkpoint_every: int = 0
    """Updates between checkpoints; 0 means by time: to cost 2 % at most, but every two minutes at least."""
    keep_checkpoints: int = 2
    """Checkpoints kept while the run lasts, beside the best."""
    export: Literal["last", "best"] = "last"
    """Which weights the result gets: the last, or those of the best evaluation."""
    resume: Path | None = None
    """Run folder to go on from instead of this command's own, e.g. to lengthen a run with more --steps."""
    allow_changed: bool = False
    """Go on with --resume although data, tokenizer or settings differ; the differences are recorded."""
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where figures go beside the run's events.jsonl."""
    eval_every: int = 0
    """Updates between evaluations during the run; 0 means only before and after."""
    max_bad_steps: int = 3
    """Updates in a row that may be skipped for an infinite or undefined loss or gradient before the run stops."""

    def as_dict(self) -> dict[str, Any]:
        """Every field as plain JSON values, paths as text."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    def check(self) -> None:
        """Check what the types cannot say.

        Raises:
            CauserieError: CAU-4001 naming the field, its value and what it should be.
        """
        for field in ("batch_size", "seq_len", "keep_checkpoints", "max_bad_steps", "tensor_parallel"):
            _at_least(self, field, 1)
        for field in ("steps", "tokens"):
            if getattr(self, field) is not None:
                _at_least(self, field, 1)
        for field in ("micro_batch", "warmup", "checkpoint_every", "eval_every", "weight_decay", "grad_clip"):
            _at_least(self, field, 0)
        for field in ("spike_sigmas", "replay_every", "exact_parts"):
            _at_least(self, field, 0)
        if self.exact_parts & (self.exact_parts - 1) or (self.exact_parts and self.batch_size % self.exact_parts):
            raise bad_setting("exact_parts", self.exact_parts, "a power of two that divides batch_size")
        for field in ("decay_fraction", "final_lr"):
            _within(self, field, 0.0, 1.0)
        for field in ("lr", "lr_scale", "matrix_lr", "minutes"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise bad_setting(field, value, "a finite number above 0")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainSettings):
    """`causerie train pretrain`: a model from random weights on token shards.

    The dial is enough: without steps, minutes or tokens a model is trained on 20 tokens for each of its parameters.
    """

    shards: Path
    """Artifact folder of token shards (`data pack`)."""
    tokenizer: Path
    """Artifact folder of the tokenizer the shards were made with."""
    depth: int = 4
    """The one dial of size: layers, with the width and heads that go with them."""
    n_layer: int | None = None
    """Layers, where they should differ from the dial's."""
    n_embd: int | None = None
    """Width, where it should differ from the dial's."""
    n_head: int | None = None
    """Query heads, where they should differ from the dial's."""
    n_kv_head: int | None = None
    """Key and value heads, where they should differ from the dial's."""
    head_dim: int | None = None
    """Width of a head, where it should differ from the dial's."""
    ffn_dim: int | None = None
    """Width inside the feed-forward layer, where it should differ from the dial's."""
    batch_size: int = 0
    """Rows per update; 0 means by rule: 4,096 tokens, or growing with the horizon where that is given in tokens."""
    extras: bool = True
    """Train with parts that fold exactly into the plain model at the end (norm of the embeddings, scales of the
    residual stream, sharper queries and keys): fewer bits per byte for the same time. The result is a plain model; a
    small one gets an output projection of its own."""
    layout: Literal["stream", "rows"] = "stream"
    """Rows cut from the stream of tokens, or whole documents fitted into rows."""
    eval_tokens: int = 65_536
    """Validation tokens to evaluate on, at most."""
    prompts: tuple[str, ...] = ("The ", "Once upon a time", "La France est ")
    """Prompts continued greedily at each evaluation, to see what the model has learnt."""

    def check(self) -> None:
        """See `TrainSettings.check`; also the dimensions given by hand. There need not be a limit."""
        _at_least(self, "batch_size", 0)
        TrainSettings.check(self if self.batch_size else replace(self, batch_size=max(1, self.exact_parts)))
        for field in ("depth", "n_layer", "n_embd", "n_head", "n_kv_head", "head_dim", "ffn_dim", "eval_tokens"):
            if getattr(self, field) is not None:
                _at_least(self, field, 1)


@dataclass(frozen=True, kw_only=True)
class MlmConfig(PretrainConfig):
    """`causerie train mlm`: an encoder from random weights that guesses hidden tokens."""

    name: str = "encoder"
    """Name of the artifact that is made."""
    extras: bool = False
    """Refused: an encoder's embedding norm and first block are others, nothing would fold into them."""
    mask_share: float = 0.3
    """Share of the tokens that are hidden."""

    def check(self) -> None:
        """See `PretrainConfig.check`; also the share that is hidden."""
        super().check()
        _within(self, "mask_share", 0.01, 0.9)
        if self.extras:
            raise bad_setting("extras", True, "--no-extras: they do not fold into an encoder")


@dataclass(frozen=True, kw_only=True)
class SftConfig(TrainSettings):
    """`causerie train sft`: teach a model from conversations; the loss is on the assistant's words only."""

    name: str = "sft"
    """Name of the artifact that is made."""
    model: Path
    """Model folder, or an adapter folder whose adapter is trained further."""
    data: tuple[Path, ...]
    """JSONL files of conversations (`{"messages": [...]}`)."""
    heldout: Path | None = None
    """JSONL file of conversations to measure on; without it, `heldout_fraction` of the rows is kept apart."""
    heldout_fraction: float = 0.02
    """Share of the rows kept apart, chosen by a hash of the row's prompt."""
    heldout_rows: int = 96
    """Held-out rows to measure on, at most."""
    epochs: float | None = None
    """Limit: passes over the rows. Without any limit, one."""
    snapshots: int = 0
    """Models kept from on the way, evenly spaced, beside the result: whole folders in the run's `snapshots/`."""
    lora_rank: int = 0
    """Rank of a LoRA adapter; 0 trains all weights. An adapter that is trained further keeps its own."""
    lora_alpha: float | None = None
    """Scale of the adapter; twice the rank unless given."""
    too_long: Literal["truncate", "drop"] = "truncate"
    """What happens to rows longer than `seq_len`; both are counted."""
    batch_size: int = 8
    """Rows of `seq_len` tokens per update; several short conversations share a row without seeing each other."""
    seq_len: int = 512
    """Tokens per row."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """AdamW for all weights, or Muon for the matrices (not for adapters)."""
    schedule: Literal["wsd", "cosine", "linear"] = "linear"
    """Shape of the learning rate after warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the matrices."""
    compile: Literal["auto", "on", "off"] = "auto"
    """See `TrainSettings.compile`."""

    def check(self) -> None:
        """See `TrainSettings.check`; also the adapter's fields and the data."""
        super().check()
        _at_least(self, "lora_rank", 0)
        _at_least(self, "snapshots", 0)
        _at_least(self, "heldout_rows", 1)
        _within(self, "heldout_fraction", 0.0, 0.5)
        if not self.data:
            raise bad_setting("data", "", "at least one JSONL file")
        for field in ("epochs", "lora_alpha"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise bad_setting(field, value, "a finite number above 0")


def need_limit(settings: TrainSettings) -> None:
    """Check that the run ends somewhere.

    Raises:
        CauserieError: CAU-4001 when none of steps, minutes and tokens is given.
    """
    if settings.steps is None and settings.minutes is None and settings.tokens is None:
        raise CauserieError(
            "CAU-4001",
            "the run has no end: none of steps, minutes and tokens is given",
            where="steps, minutes, tokens",
            fix="give one of them, such as --minutes 5",
        )


def bad_setting(field: str, value: object, wanted: str) -> CauserieError:
    """CAU-4001 for a field: its value and what was expected."""
    return CauserieError("CAU-4001", f"{field} is {value!r}", where=field, fix=f"give {wanted}")


def _at_least(settings: TrainSettings, field: str, least: int) -> None:
    value = getattr(settings, field)
    if not value >= least:
        raise bad_setting(field, value, f"a number of at least {least}")


def _within(settings: TrainSettings, field: str, low: float, high: float) -> None:
    value = getattr(settings, field)
    if not low <= value <= high:
        raise bad_setting(field, value, f"a number from {low:g} to {high:g}")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
