"""What every alignment stage does around its objective: open the model, find the key, write the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from causerie.align.batches import GroupBatches
from causerie.align.config import AlignSettings
from causerie.align.scoring import Score, log_prob_sums, reference_log_probs, score_groups
from causerie.align.shared_rows import Group
from causerie.core import (
    Artifact,
    CauserieError,
    Run,
    artifact_key,
    code_digest,
    content_key,
    existing_artifact,
    open_run,
)
from causerie.model import Transformer, add_lora, base_folder, load_model, lora_parameters
from causerie.text import ChatFormat, load_chat_format
from causerie.train import (
    Callback,
    FitResult,
    Objective,
    autocast,
    delete_checkpoints,
    fit,
    is_adapter,
    keep_snapshots,
    open_output,
    output_folder,
    pick_device,
    save_trained,
    uses_bf16,
)

PLACE_FIELDS = ("name", "out", "model", "checkpoint_every", "keep_checkpoints", "snapshots", "resume", "allow_changed")
"""Fields that change where a result is or how it is kept, not what it is."""

Measure = Callable[[Tensor, "Measured"], dict[str, float]]
"""Figures of one side from the model's log-probabilities (or rewards) `(n, k)` and what is known about its rows."""

Save = Callable[[Transformer, Path], None]
"""Writes a trained model into an artifact's draft folder."""


@dataclass(frozen=True)
class Measured:
    """Rows of one side (training or held-out): groups, per-row values, the reference's log-probabilities among them."""

    groups: tuple[Group, ...]
    values: Mapping[str, Tensor]

    def head(self, rows: int) -> Measured:
        """Every so-manieth row, at most `rows`: an even sample."""
        if len(self.groups) <= rows:
            return self
        kept = [index * len(self.groups) // rows for index in range(rows)]
        index = torch.tensor(kept)
        return Measured(tuple(self.groups[i] for i in kept), {name: v[index] for name, v in self.values.items()})


class Events(Protocol):
    """Hears the events of a run, as `Run.log` does."""

    def __call__(self, event: str, **values: Any) -> None:
        """One event: its name and its figures."""
        ...


@dataclass
class _HeardRun(Run):
    """A run whose events somebody else hears too."""

    heard: Events | None = None

    def log(self, event: str, **values: Any) -> None:
        super().log(event, **values)
        if self.heard is not None:
            self.heard(event, **values)


@dataclass(frozen=True)
class Stage:
    """One alignment run: what it is called, its settings, where it works, and its inputs' keys."""

    command: str
    config: AlignSettings
    workspace: Path
    inputs: dict[str, str]
    base: Path | None
    """Base model's folder when an adapter is trained."""

    @property
    def kind(self) -> str:
        """Kind of artifact that is made."""
        if self.command == "reward":
            return "reward"
        return "model" if self.base is None else "adapter"

    @property
    def key(self) -> str:
        """Key of the result."""
        left_out = {*PLACE_FIELDS, *self.config.inputs()}
        settings = {name: value for name, value in self.config.as_dict().items() if name not in left_out}
        code = code_digest("causerie.align", "causerie.train", "causerie.model")
        return artifact_key(self.kind, {"command": self.command, **settings}, self.inputs, code)

    def existing(self) -> Artifact | None:
        """The result if it is there already."""
        return existing_artifact(self.config.out, self.workspace, self.kind, self.config.name, self.key, self.inputs)

    @contextmanager
    def open_run(self, events: Events | None = None) -> Iterator[Run]:
        """The run folder of this stage; `events` hears what it logs."""
        with open_run(self.workspace, self.command, self.config.name, self.key, self.config.as_dict()) as run:
            yield run if events is None else _HeardRun(**vars(run), heard=events)


def open_stage(command: str, config: AlignSettings, workspace: Path) -> Stage:
    """Check the settings and name the inputs; no weights are loaded.

    Raises:
        CauserieError: CAU-4001, CAU-4103 when Muon is asked to train an adapter, CAU-1001 when a folder is missing.
    """
    config.check()
    adapter = is_adapter(config.model)
    if (adapter or config.lora_rank) and config.optimizer == "muon":
        raise CauserieError("CAU-4103", "Muon does not train adapters", where="optimizer", fix="use adamw")
    inputs = {"model": content_key(config.model)}
    inputs |= {name: content_key(path) for name, path in config.inputs().items()}
    base = base_folder(config.model) if adapter else config.model if config.lora_rank else None
    if base is not None:
        inputs["base"] = content_key(base)
    return Stage(command, config, workspace, inputs, base)


@dataclass
class Policy:
    """The model being trained, and the precision that its log-probabilities are computed in."""

    model: Transformer
    chat: ChatFormat
    device: torch.device
    bf16: bool

    @property
    def precision(self) -> str:
        """Arithmetic that log-probabilities depend on: of the products, and of the weights held."""
        held = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return f"{'bf16' if self.bf16 else 'fp32'} on {self.device.type}, weights in {held}"

    def score(self, groups: tuple[Group, ...], label: str, score: Score = log_prob_sums) -> Tensor:
        """`score_groups` under the run's autocast."""
        with autocast(self.device, self.bf16):
            return score_groups(self.model, groups, label=label, score=score)


def open_policy(stage: Stage) -> Policy:
    """Load the model as it will be trained: all weights, or an adapter (new or continued) on a frozen base.

    A frozen base is held in bf16 where products run in bf16; what is trained is float32.
    """
    config = stage.config
    device = pick_device(config)
    bf16 = uses_bf16(config, device)
    dtype = torch.bfloat16 if stage.base is not None and bf16 else torch.float32
    model = load_model(config.model, dtype=dtype, merge_adapters=False)
    if config.lora_rank and not lora_parameters(model):
        add_lora(model, config.lora_rank, config.lora_alpha or 2.0 * config.lora_rank, seed=config.seed)
    model.to(device)
    return Policy(model, load_chat_format(config.model), device, bf16)


def reference(policy: Policy, stage: Stage, groups: tuple[Group, ...], label: str) -> Tensor:
    """The reference's log-probabilities of the groups: those of the policy before its first update, kept on disk."""
    with autocast(policy.device, policy.bf16):
        return reference_log_probs(
            policy.model,
            groups,
            workspace=stage.workspace,
            model_key=stage.inputs["model"],
            precision=policy.precision,
            label=label,
        )


def train(
    stage: Stage,
    policy: Policy,
    run: Run,
    objective: Objective,
    sides: Mapping[str, Measured],
    measure: Measure,
    *,
    at_least: int = 1,
    score: Score = log_prob_sums,
    score_side: Callable[[Measured], Tensor] | None = None,
    kept: int = 0,
) -> FitResult:
    """Fit the policy on `sides["train"]`, measuring every side before, after and every `eval_every` updates.

    A side's completions are scored by `score`, or all at once by `score_side` where that is given. `kept` models from
    on the way stay beside the result; see `keep_snapshots`.
    """
    config, rows = stage.config, sides["train"]
    batches = GroupBatches(rows.groups, rows.values, config.batch_size, config.micro_batch, config.seed, at_least)
    samples = {name: side.head(config.measure_rows) for name, side in sides.items() if side.groups}

    def figures(model: Transformer, step: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, side in samples.items():
            scored = score_side(side) if score_side else policy.score(side.groups, f"measure {name}", score)
            found |= {f"{name}_{figure}": round(value, 6) for figure, value in measure(scored, side).items()}
        return found

    callback = Callback(figures, "preference", config.eval_every)
    settings = limited(config, batches.steps_per_epoch)
    peak = (config.lr or default_preference_lr(policy.model)) * config.lr_scale
    settings = dataclasses.replace(settings, lr=peak)
    keeping = keep_snapshots(kept, settings.steps, run.path, config.model, stage.key, stage.workspace)
    return fit(policy.model, objective, batches, settings, run, callbacks=[callback, *keeping])


def default_preference_lr(model: Transformer) -> float:
    """AdamW's peak learning rate, falling with the number of weights: about a twentieth of what SFT bears.

    All weights: 1e-4 at most, 5e-5 at 1.5M weights beside the embedding; adapters: 3e-4 at most, 1e-5 at 100M. Measured
    on a 0.2M model (64 updates; margin and damage to held-out answers) and, for adapters, on a 270M model.
    """
    size = model.shape.n_params_without_embedding
    if lora_parameters(model):
        return min(3e-4, 1e-5 * (1e8 / size) ** 0.6)
    return min(1e-4, 5e-5 * (1.5e6 / size) ** 0.6)


def limited(config: AlignSettings, steps_per_epoch: int) -> AlignSettings:
    """The settings with `epochs` turned into steps; one epoch when there is no limit at all."""
    epochs = config.epochs
    if epochs is None and config.steps is None and config.minutes is None and config.tokens is None:
        epochs = 1.0
    if epochs is None:
        return config
    steps = max(1, math.ceil(epochs * steps_per_epoch))
    return dataclasses.replace(config, steps=min(steps, config.steps or steps))


def write_result(
    stage: Stage, policy: Policy, result: FitResult, counts: Mapping[str, Any], run: Run, save: Save | None = None
) -> Artifact:
    """Write the model or adapter (or what `save` writes) with its metrics; the run's result names it."""
    before, after = result.figures("preference")[0], result.figures("preference")[-1]
    metrics = {
        "steps": result.steps,
        "loss": round(result.loss, 6),
        "seconds": result.seconds,
        "tokens": result.tokens,
        "bad_steps": result.bad_steps,
        "precision": result.precision,
        "rows": dict(counts),
        "before": {name: value for name, value in before.items() if name not in ("event", "step")},
        "after": {name: value for name, value in after.items() if name not in ("event", "step")},
    }
    config = stage.config
    final = output_folder(config, stage.workspace, stage.kind, stage.key)
    policy.model.to("cpu")
    with open_output(
        config, stage.workspace, stage.kind, stage.key, stage.inputs, config.model, command=stage.command
    ) as draft:
        draft.metrics.update(metrics)
        if save is None:
            save_trained(policy.model, draft, final, config.model, stage.workspace)
        else:
            save(policy.model, draft.path)
    assert draft.artifact is not None
    delete_checkpoints(run.path)
    run.result.update(artifact=str(draft.artifact.path), key=stage.key, **metrics)
    return draft.artifact
