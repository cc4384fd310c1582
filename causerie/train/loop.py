"""The one training loop. Objectives differ only in the function that turns a batch into a loss.

    result = fit(model, objective, batches, settings, run, callbacks=[Callback(...)])

`objective(model, batch) -> LossParts` runs the model on one micro-batch. `batches.micro_batches(step)` gives the
micro-batches of an update and is a pure function of the step, so a resumed run sees the same data in the same order.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from causerie.core import CauserieError, Run, Stopped, Tracker, crashpoint, graceful_stop, say, track
from causerie.model import Transformer
from causerie.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from causerie.train.config import TrainSettings, need_limit
from causerie.train.machine import (
    autocast,
    compile_model,
    pick_device,
    uncompile_model,
    uncompiled,
    uses_bf16,
    wants_compile,
)
from causerie.train.optim import Optimizers, make_optimizers
from causerie.train.schedule import lr_factor

CHECKPOINT_SECONDS = 120.0

Batch = Mapping[str, Tensor]
"""A micro-batch: named tensors, made on the CPU; `fit` moves them to the model's device."""


class LossParts(NamedTuple):
    """What an objective returns for one micro-batch: sums, so that micro-batches add up to the whole batch exactly."""

    loss_sum: Tensor
    """Scalar with gradient: the loss summed over its units (tokens, or pairs for preference objectives)."""
    n_tokens: Tensor | float
    """How many units `loss_sum` is a sum of, or their summed weights; the mean is taken over all micro-batches."""
    metrics: Mapping[str, Tensor | float] | None = None
    """Figures to log, as sums over the same units."""
    seen: int = 0
    """Tokens that went through the model, padding not counted, for tokens/s; 0 means `n_tokens`."""


Objective = Callable[[Transformer, Batch], LossParts]


class Batches(Protocol):
    """Training data as a pure function of the step."""

    @property
    def fingerprint(self) -> str:
        """Digest of the data, their order and their shapes; a checkpoint made with another one is refused."""
        ...

    def micro_batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of update `step` (from 0)."""
        ...


@dataclass(frozen=True)
class Callback:
    """Something to do beside the updates (evaluate, sample): before the first, every `every`, and after the last.

    `call(model, step)` runs without gradients and in eval mode and returns figures, which are logged as event
    `event` and kept in `FitResult.evaluations`. It must not change the model.
    """

    call: Callable[[Transformer, int], Mapping[str, Any] | None]
    event: str = "eval"
    every: int = 0
    """Updates between calls; 0 means only before and after."""


@dataclass(frozen=True)
class FitResult:
    """How a run went, counted over all its sittings unless said otherwise."""

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    """Median of this sitting's updates, the first three left out; evaluation and checkpoints not counted."""
    loss: float
    """Mean loss of the last ten updates."""
    bad_steps: int
    """Updates skipped for an infinite or undefined loss or gradient."""
    compiled: bool
    precision: str
    evaluations: tuple[dict[str, Any], ...]
    """What the callbacks returned, in order, with "event" and "step" added."""

    def figures(self, event: str = "eval") -> list[dict[str, Any]]:
        """The evaluations of one kind, in order: the first is from before the first update, the last from after."""
        return [row for row in self.evaluations if row["event"] == event]


def fit(
    model: Transformer,
    objective: Objective,
    batches: Batches,
    settings: TrainSettings,
    run: Run,
    *,
    callbacks: Sequence[Callback] = (),
    flops_per_token: float = 0.0,
    optimizers: Optimizers | None = None,
) -> FitResult:
    """Train the parameters of `model` that require gradients, in place, until the first limit is reached.

    Gradients of all micro-batches of an update are summed and divided by the summed `n_tokens`, then clipped. An update
    whose loss or gradient is not finite is computed once more, then skipped and counted. Checkpoints live in the run's
    folder: called again with the same run, `fit` goes on from the newest valid one, and with equal torch version,
    thread count and limits in steps or tokens the weights come out bit for bit as from an unbroken run. Events: `step`
    for every update, those of the callbacks, `resume`, `bad_step`, `checkpoint`.

    Args:
        model: moved to `settings.device`; frozen parameters are neither trained nor saved.
        objective: see `Objective`; runs under autocast when `settings.precision` is bf16.
        batches: see `Batches`.
        settings: limits, batch, learning rate, and so on.
        run: the run folder that the caller owns.
        callbacks: evaluations; see `Callback`.
        flops_per_token: training FLOPs per token, to decide on compiling and to log GFLOP/s; 0 means 6 × weights.
        optimizers: instead of `make_optimizers(model, settings)`.

    Raises:
        Stopped: after SIGTERM or SIGINT, with the state saved.
        CauserieError: CAU-4001 for bad settings, CAU-4003 after `max_bad_steps` bad updates in a row, CAU-4004 when
            the run's checkpoint was made with other data or another model, CAU-1007 when a checkpoint can't be written.
    """
    settings.check()
    need_limit(settings)
    device = pick_device(settings)
    model.to(device)
    sitting = _Sitting(model, objective, batches, settings, run, callbacks, device, flops_per_token)
    sitting.optimizers = optimizers or make_optimizers(model, settings)
    sitting.restore()
    begun = 100 * sitting.share_done()
    with graceful_stop() as stop, track(f"train {run.name}", 100, "%", begun) as tracker:
        sitting.work(stop, tracker)
    return sitting.result()


@dataclass
class _Sitting:
    """One process's part of a run: from a checkpoint (or nothing) to the end, a stop or an error."""

    model: Transformer
    objective: Objective
    batches: Batches
    settings: TrainSettings
    run: Run
    callbacks: Sequence[Callback]
    device: torch.device
    flops_per_token: float
    optimizers: Optimizers = field(default_factory=Optimizers)
    progress: Progress = field(default_factory=Progress)
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    seconds_before: float = 0.0
    last_checkpoint: float = field(default_factory=time.monotonic)

    def restore(self) -> None:
        """Take up the newest valid checkpoint, or begin."""
        self.flops_per_token = self.flops_per_token or 6.0 * sum(p.numel() for p in self.model.parameters())
        self.bf16 = uses_bf16(self.settings, self.device)
        found = load_checkpoint(self.run.path, self.model, self.optimizers, self.batches.fingerprint)
        if found is None:
            torch.manual_seed(self.settings.seed)
            compiled, why = wants_compile(self.settings, self.device, self.flops_per_token)
            self.progress.compiled = compiled
            say(f"train {self.run.name}: {'bf16' if self.bf16 else 'fp32'} on {self.device.type}, {why}")
        else:
            self.progress = found
            self.seconds_before = found.seconds
            self.run.log("resume", step=found.step)
            say(f"train {self.run.name}: going on from step {found.step}")
        if self.progress.compiled:
            compile_model(self.model)

    def work(self, stop: Callable[[], bool], tracker: Tracker) -> None:
        """Updates, evaluations and checkpoints until the end."""
        if self.progress.step == 0:
            self.evaluate(first=True)
        shown = self.share_done()
        while (share := self.share_done()) < 1:
            if stop():
                self.checkpoint()
                raise Stopped(f"stopped at step {self.progress.step} with the state saved; run it again to go on")
            self.update(share)
            crashpoint("train.after_step")
            now = min(self.share_done(), 1.0)
            figures = {"step": self.progress.step, "loss": self.losses[-1]} if self.losses else {}
            tracker.advance(100 * (now - shown), **figures)
            shown = now
            if now < 1:
                self.evaluate()
                self.checkpoint_if_due()
        self.evaluate(last=True)
        self.checkpoint()

    def share_done(self) -> float:
        """Share of the run that is behind us: 1 or more means that a limit was reached."""
        limits = self.settings
        shares = [
            0.0 if limits.steps is None else self.progress.step / limits.steps,
            0.0 if limits.tokens is None else self.progress.tokens / limits.tokens,
            0.0 if limits.minutes is None else self.seconds() / (60 * limits.minutes),
        ]
        return max(shares)

    def seconds(self) -> float:
        """Wall-clock seconds of the whole run, over all sittings."""
        return self.seconds_before + time.monotonic() - self.started

    def update(self, share: float) -> None:
        """One update of the weights, or one that is skipped and counted."""
        began, cpu_began = time.monotonic(), time.process_time()
        step = self.progress.step
        micro = [self.to_device(batch) for batch in self.batches.micro_batches(step)]
        sums = self.gradients(micro)
        if not sums.finite:
            self.run.log("bad_step", step=step, loss=str(sums.loss), grad_norm=str(sums.grad_norm), again=True)
            sums = self.gradients(micro)
        lr = self.optimizers.set_lr(lr_factor(self.settings, step, share))
        if sums.finite:
            self.optimizers.step()
            self.progress.bad_in_a_row = 0
        self.optimizers.zero_grad()
        self.progress.step += 1
        self.progress.tokens += sums.seen
        self.progress.seconds = self.seconds()
        if sums.finite:
            self.log_step(step, sums, lr, time.monotonic() - began, time.process_time() - cpu_began)
        else:
            self.count_bad(step, sums)

    def gradients(self, micro: Sequence[Batch]) -> _Sums:
        """Fill the gradients with those of the mean loss over all micro-batches, clipped; and the sums behind them."""
        self.optimizers.zero_grad()
        self.model.train()
        loss_sum, n_tokens, seen = 0.0, 0.0, 0
        metrics: dict[str, float] = {}
        for batch in micro:
            try:
                parts = self.run_objective(batch)
            except TorchDynamoException as error:
                if not self.progress.compiled:
                    raise
                self.give_up_compiling(error)
                return self.gradients(micro)
            loss_sum += float(parts.loss_sum.detach())
            n_tokens += float(parts.n_tokens)
            seen += parts.seen or int(parts.n_tokens)
            for name, value in (parts.metrics or {}).items():
                metrics[name] = metrics.get(name, 0.0) + float(value)
        norm = self.optimizers.scale_and_clip(n_tokens, self.settings.grad_clip) if n_tokens else math.nan
        divisor = n_tokens or math.nan
        return _Sums(loss_sum / divisor, norm, {name: value / divisor for name, value in metrics.items()}, seen)

    def run_objective(self, batch: Batch) -> LossParts:
        """Forward and backward of one micro-batch."""
        with autocast(self.device, self.bf16):
            parts = self.objective(self.model, batch)
        torch.autograd.backward(parts.loss_sum)
        return parts

    def give_up_compiling(self, error: Exception) -> None:
        """Go on without the compiler, saying why."""
        why = str(error).strip().partition("\n")[0][:200]
        say(f"train {self.run.name}: compiling failed, going on without ({type(error).__name__}: {why})")
        self.run.log("not_compiled", reason=why)
        self.progress.compiled = False
        uncompile_model(self.model)

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the model's device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def log_step(self, step: int, sums: _Sums, lr: float, seconds: float, cpu_seconds: float) -> None:
        """Record an update that was applied."""
        self.losses.append(sums.loss)
        rate = sums.seen / max(seconds, 1e-9)
        self.rates.append(rate)
        done = min(self.share_done(), 1.0)
        passed = self.seconds()
        self.run.log(
            "step",
            step=step,
            loss=round(sums.loss, 6),
            lr=lr,
            grad_norm=round(sums.grad_norm, 5),
            tokens=self.progress.tokens,
            tokens_per_second=round(rate, 1),
            gflops_per_second=round(rate * self.flops_per_token / 1e9, 2),
            step_seconds=round(seconds, 3),
            cpu_seconds=round(cpu_seconds, 3),
            seconds=round(passed, 2),
            seconds_left=round(passed * (1 - done) / done, 1) if done else None,
            **{name: round(value, 6) for name, value in sums.metrics.items()},
        )

    def count_bad(self, step: int, sums: _Sums) -> None:
        """Count an update that was not applied; stop after too many in a row."""
        self.progress.bad_steps += 1
        self.progress.bad_in_a_row += 1
        self.run.log("bad_step", step=step, loss=str(sums.loss), grad_norm=str(sums.grad_norm), again=False)
        say(f"step {step}: loss {sums.loss}, gradient norm {sums.grad_norm}; the update was not applied")
        if self.progress.bad_in_a_row >= self.settings.max_bad_steps:
            raise CauserieError(
                "CAU-4003",
                f"{self.progress.bad_in_a_row} updates in a row had loss {sums.loss} or gradient {sums.grad_norm}",
                where=f"{self.run.path}, step {step}",
                fix="lower --lr, lengthen --warmup, or look at the data of these steps",
            )

    def evaluate(self, *, first: bool = False, last: bool = False) -> None:
        """Run the callbacks that are due."""
        step = self.progress.step
        for callback in self.callbacks:
            known = any(row["event"] == callback.event and row["step"] == step for row in self.progress.evaluations)
            due = first or last or (callback.every > 0 and step % callback.every == 0)
            if known or not due:
                continue
            with undisturbed(self.model):
                figures = dict(callback.call(self.model, step) or {})
            self.progress.evaluations.append({"event": callback.event, "step": step, **figures})
            self.run.log(callback.event, step=step, **figures)

    def checkpoint_if_due(self) -> None:
        """Save when the configured number of updates, or by default two minutes, went by."""
        every = self.settings.checkpoint_every
        if every:
            due = self.progress.step % every == 0
        else:
            due = time.monotonic() - self.last_checkpoint >= CHECKPOINT_SECONDS
        if due:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save the state."""
        self.progress.seconds = self.seconds()
        fingerprint = self.batches.fingerprint
        keep = self.settings.keep_checkpoints
        save_checkpoint(self.run.path, self.progress, self.model, self.optimizers, fingerprint, keep)
        self.last_checkpoint = time.monotonic()
        self.run.log("checkpoint", step=self.progress.step)

    def result(self) -> FitResult:
        """The figures of the whole run."""
        rates = self.rates[3:] or self.rates
        return FitResult(
            steps=self.progress.step,
            tokens=self.progress.tokens,
            seconds=round(self.progress.seconds, 3),
            tokens_per_second=round(statistics.median(rates), 1) if rates else 0.0,
            loss=statistics.fmean(self.losses[-10:]) if self.losses else math.nan,
            bad_steps=self.progress.bad_steps,
            compiled=self.progress.compiled,
            precision="bf16" if self.bf16 else "fp32",
            evaluations=tuple(self.progress.evaluations),
        )


@dataclass(frozen=True)
class _Sums:
    """An update's mean loss, gradient norm before clipping, mean metrics and tokens."""

    loss: float
    grad_norm: float
    metrics: dict[str, float]
    seen: int

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


@contextmanager
def undisturbed(model: Transformer) -> Iterator[None]:
    """Evaluate inside: eval mode, no gradients, not compiled (other shapes would compile anew), random state kept."""
    state = torch.get_rng_state()
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), uncompiled(model):
            yield
    finally:
        model.train(training)
        torch.set_rng_state(state)
