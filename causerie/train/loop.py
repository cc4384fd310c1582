"""The one training loop. Objectives differ only in the function that turns a batch into a loss.

    result = fit(model, objective, batches, settings, run, callbacks=[Callback(...)])

`objective(model, batch) -> LossParts` runs the model on one micro-batch. `batches.micro_batches(step)` gives the
micro-batches of an update and is a pure function of the step, so a resumed run sees the same data in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch._dynamo.exc import TorchDynamoException

from causerie.core import CauserieError, Run, Stopped, Tracker, crashpoint, graceful_stop, say, track
from causerie.model import Transformer
from causerie.train.checkpoint import Checkpoints, Progress
from causerie.train.config import TrainSettings, need_limit
from causerie.train.diary import Diary
from causerie.train.gradients import Gradients, Sums
from causerie.train.health import SpikeRule
from causerie.train.identity import identity
from causerie.train.machine import (
    compile_model,
    expected_seconds,
    keep_freed_memory,
    pick_device,
    uncompile_model,
    uncompiled,
    uses_bf16,
    wants_compile,
)
from causerie.train.meter import matmul_peak
from causerie.train.objective import Batch, Batches, Callback, FitResult, LossParts, Objective
from causerie.train.optim import Optimizers, make_optimizers
from causerie.train.schedule import lr_factor
from causerie.train.sharding import shard_model
from causerie.train.world import World

__all__ = ["Batch", "Batches", "Callback", "FitResult", "LossParts", "Objective", "fit", "undisturbed"]

CHECKPOINT_SECONDS = (2.0, 120.0)
"""Shortest and longest time between checkpoints where it is not set in updates."""
CHECKPOINT_SHARE = 0.02
"""Share of the time that checkpoints may keep the training waiting, within these bounds."""
PEAK_FROM_SECONDS = 20.0
"""Expected length of a run from which the machine's peak is measured (a fifth of a second)."""


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
    world: World | None = None,
    inputs: Mapping[str, str] | None = None,
) -> FitResult:
    """Train the parameters of `model` that require gradients, in place, until the first limit is reached.

    Gradients of all micro-batches of an update are summed and divided by the summed `n_tokens`, then clipped. An update
    whose loss or gradient is not finite is computed once more, then skipped and counted; so is one that the spike rule
    finds too far off. Checkpoints live in the run's folder: called again with the same run, `fit` goes on from the
    newest valid one, and with equal torch version, thread count and limits in steps or tokens the weights come out bit
    for bit as from an unbroken run. Events: `sitting`, `step` for every update, those of the callbacks, `resume`,
    `bad_step`, `spike`, `checkpoint`.

    Args:
        model: moved to `settings.device`; frozen parameters are neither trained nor saved. Sharded in place where
            `world` has several processes.
        objective: see `Objective`; runs under autocast when `settings.precision` is bf16.
        batches: see `Batches`; every process gives all micro-batches, of which it computes its part.
        settings: limits, batch, learning rate, and so on.
        run: the run folder that the caller owns.
        callbacks: evaluations; see `Callback`.
        flops_per_token: training FLOPs per token, to decide on compiling and to log GFLOP/s; 0 means 6 × weights.
        optimizers: instead of `make_optimizers(model, settings)`.
        world: the processes that train together; None is this one alone.
        inputs: role → key of what the run is made from, to tell what changed since a checkpoint.

    Raises:
        Stopped: after SIGTERM or SIGINT, with the state saved.
        CauserieError: CAU-4001 for bad settings, CAU-4003 after `max_bad_steps` bad updates in a row, CAU-4004 when
            the checkpoint was made with other data or another model, CAU-4006 when the batch does not divide among the
            processes, CAU-4008 when the machine miscounts, CAU-1007 when a checkpoint can't be written.
    """
    settings.check()
    need_limit(settings)
    world = world or World(device=pick_device(settings))
    _place(model, world, settings)
    optimizers = optimizers or make_optimizers(model, settings)
    gradients = Gradients(model, objective, optimizers, settings, world, uses_bf16(settings, world.device))
    made_from = identity(run.config, inputs or {})
    checkpoints = Checkpoints(
        run.path, model, optimizers, batches.fingerprint, made_from, settings.keep_checkpoints, world
    )
    flops = flops_per_token or 6.0 * sum(p.numel() for p in model.parameters())
    sitting = _Sitting(model, batches, settings, run, callbacks, gradients, checkpoints, Diary(run, settings, flops))
    sitting.restore()
    with graceful_stop() as stop, track(f"train {run.name}", 100, "%", 100 * sitting.share_done()) as tracker:
        try:
            sitting.work(stop, tracker)
        finally:
            sitting.diary.close()
    return sitting.result()


def _place(model: Transformer, world: World, settings: TrainSettings) -> None:
    """Put the model on the world's device; over several processes, unless gradients are added in a fixed order."""
    model.to(world.device)
    if world.size > 1 and not settings.exact_parts:
        shard_model(model, world, settings.tensor_parallel)


@dataclass
class _Sitting:
    """One process's part of a run: from a checkpoint (or nothing) to the end, a stop or an error."""

    model: Transformer
    batches: Batches
    settings: TrainSettings
    run: Run
    callbacks: Sequence[Callback]
    gradients: Gradients
    checkpoints: Checkpoints
    diary: Diary
    progress: Progress = field(default_factory=Progress)
    spikes: SpikeRule = field(default_factory=lambda: SpikeRule(0))
    started: float = field(default_factory=time.monotonic)
    seconds_before: float = 0.0
    last_checkpoint: float = field(default_factory=time.monotonic)
    saved_step: int = -1

    @property
    def world(self) -> World:
        """The processes that train together."""
        return self.gradients.world

    def restore(self) -> None:
        """Take up the newest valid checkpoint, or begin."""
        device = self.world.device
        self.diary.begin(device.type, self.world.size)
        found = self.checkpoints.load(self.settings.resume, self.settings.allow_changed)
        if found is None:
            torch.manual_seed(self.settings.seed)
            compiled, why = wants_compile(self.settings, device, self.diary.flops_per_token)
            if self.world.size > 1 and self.settings.compile != "on":
                compiled, why = False, f"not compiled: {self.world.size} processes"
            self.progress.compiled = compiled
            say(f"train {self.run.name}: {'bf16' if self.gradients.bf16 else 'fp32'} on {device.type}, {why}")
        else:
            self.progress = found
            self.seconds_before, self.saved_step = found.seconds, found.step
            self.run.log("resume", step=found.step)
            say(f"train {self.run.name}: going on from step {found.step}")
        windows = self.progress.spike_losses, self.progress.spike_norms
        self.spikes = SpikeRule(self.settings.spike_sigmas, *windows)
        keep_freed_memory(device)
        if expected_seconds(self.settings, device, self.diary.flops_per_token) >= PEAK_FROM_SECONDS:
            self.diary.peak = matmul_peak(device, self.gradients.bf16) * self.world.size
        if self.progress.compiled:
            compile_model(self.model)

    def work(self, stop: Callable[[], bool], tracker: Tracker) -> None:
        """Updates, evaluations and checkpoints until the end."""
        if self.progress.step == 0:
            self.evaluate(first=True)
        shown = self.share_done()
        while True:
            share, stopping, due = self.world.agree(self.share_done(), stop(), self.checkpoint_is_due())
            if share >= 1:
                break
            if stopping:
                self.checkpoint()
                self.checkpoints.wait()
                raise Stopped(f"stopped at step {self.progress.step} with the state saved; run it again to go on")
            if due and self.progress.step:
                self.checkpoint()
            self.update(share)
            crashpoint("train.after_step")
            now = min(self.share_done(), 1.0)
            tracker.advance(100 * (now - shown), **self.diary.shown(self.progress.step))
            shown = now
            if now < 1:
                self.evaluate()
        self.evaluate(last=True)
        self.checkpoint()
        self.checkpoints.wait()
        self.choose_weights()

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
        micro = self.batches.micro_batches(step)
        sums = self.compute(micro)
        if not sums.finite:
            self.run.log("bad_step", step=step, loss=str(sums.loss), grad_norm=str(sums.grad_norm), again=True)
            sums = self.compute(micro)
        if self.settings.replay_every and step % self.settings.replay_every == 0:
            self.replay(step, micro)
        optimizers = self.gradients.optimizers
        lr = optimizers.set_lr(lr_factor(self.settings, step, share))
        spike = self.spikes.is_spike(sums.loss, sums.grad_norm)
        if sums.finite and not spike:
            optimizers.step()
            self.progress.bad_in_a_row = 0
        optimizers.zero_grad()
        self.progress.step += 1
        self.progress.tokens += sums.seen
        self.progress.seconds = self.seconds()
        if not sums.finite:
            self.count_bad(step, sums)
        elif spike:
            self.count_spike(step, sums)
        else:
            seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
            done = min(self.share_done(), 1.0)
            self.diary.step(step, sums, lr, self.progress.tokens, seconds, cpu_seconds, self.seconds(), done)

    def compute(self, micro: Sequence[Batch]) -> Sums:
        """The gradient of an update; without the compiler from the moment it fails."""
        try:
            return self.gradients.compute(micro)
        except TorchDynamoException as error:
            if not self.progress.compiled:
                raise
            why = str(error).strip().partition("\n")[0][:200]
            say(f"train {self.run.name}: compiling failed, going on without ({type(error).__name__}: {why})")
            self.run.log("not_compiled", reason=why)
            self.progress.compiled = False
            uncompile_model(self.model)
            return self.gradients.compute(micro)

    def replay(self, step: int, micro: Sequence[Batch]) -> None:
        """Compute the update's gradient again: other bits mean that the machine miscounts; a third time decides."""
        first = self.gradients.digest()
        self.compute(micro)
        second = self.gradients.digest()
        if self.world.agree(float(first != second))[0] == 0:
            return
        self.compute(micro)
        third = self.gradients.digest()
        self.run.log("miscount", step=step, rank=self.world.rank, first=first, second=second, third=third)
        if self.world.agree(float(third not in (first, second)))[0] > 0:
            raise CauserieError(
                "CAU-4008",
                "the same gradient came out differently three times",
                where=f"{self.run.path}, step {step}",
                fix="run the job on another machine; the last checkpoint is from before this update",
            )
        say(f"step {step}: a gradient came out differently the second time; the value computed last is used")

    def count_bad(self, step: int, sums: Sums) -> None:
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

    def count_spike(self, step: int, sums: Sums) -> None:
        """Count an update that the spike rule skipped."""
        self.progress.spikes += 1
        self.run.log("spike", step=step, loss=sums.loss, grad_norm=sums.grad_norm)
        say(f"step {step}: loss {sums.loss:.3f}, gradient norm {sums.grad_norm:.3f} is a spike; not applied")

    def evaluate(self, *, first: bool = False, last: bool = False) -> None:
        """Run the callbacks that are due; a checkpoint after the best figure so far."""
        step = self.progress.step
        for callback in self.callbacks:
            known = any(row["event"] == callback.event and row["step"] == step for row in self.progress.evaluations)
            due = first or last or (callback.every > 0 and step % callback.every == 0)
            if known or not due:
                continue
            began = time.monotonic()
            with undisturbed(self.model):
                figures = dict(callback.call(self.model, step) or {})
            self.progress.evaluations.append({"event": callback.event, "step": step, **figures})
            self.diary.evaluated(callback.event, step, figures, time.monotonic() - began)
            value = figures.get(callback.best)
            if value is not None and (self.progress.best_value is None or value < self.progress.best_value):
                self.progress.best_step, self.progress.best_value = step, value
                if step and not last and self.settings.export == "best":
                    self.checkpoint()

    def checkpoint_is_due(self) -> bool:
        """Whether the configured number of updates, or else enough time, went by."""
        if self.progress.step == self.saved_step:
            return False
        if every := self.settings.checkpoint_every:
            return self.progress.step % every == 0 and self.progress.step > 0
        shortest, longest = CHECKPOINT_SECONDS
        interval = min(longest, max(shortest, self.checkpoints.blocked / CHECKPOINT_SHARE))
        return time.monotonic() - self.last_checkpoint >= interval

    def checkpoint(self) -> None:
        """Save the state."""
        self.progress.seconds = self.seconds()
        self.progress.spike_losses, self.progress.spike_norms = list(self.spikes.losses), list(self.spikes.norms)
        self.checkpoints.save(self.progress)
        self.last_checkpoint, self.saved_step = time.monotonic(), self.progress.step
        self.run.log("checkpoint", step=self.progress.step, blocked_seconds=round(self.checkpoints.blocked, 4))

    def choose_weights(self) -> None:
        """At the end, take the best evaluation's weights if that is wanted."""
        best = self.progress.best_step
        if self.settings.export != "best" or best in (-1, self.progress.step):
            return
        self.world.wait()
        if self.checkpoints.load_weights(best):
            say(f"the weights of step {best} had the best evaluation and are kept")

    def result(self) -> FitResult:
        """The figures of the whole run."""
        return FitResult(
            steps=self.progress.step,
            tokens=self.progress.tokens,
            seconds=round(self.progress.seconds, 3),
            tokens_per_second=self.diary.tokens_per_second(),
            loss=self.diary.last_loss(),
            bad_steps=self.progress.bad_steps,
            compiled=self.progress.compiled,
            precision="bf16" if self.gradients.bf16 else "fp32",
            evaluations=tuple(self.progress.evaluations),
            spikes=self.progress.spikes,
            peak_share=self.diary.peak_share(),
            goodput=self.diary.goodput(),
            evaluation_share=self.diary.evaluation_share(),
            best_step=self.progress.best_step,
        )


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
