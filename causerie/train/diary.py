"""What a run says about itself: an event for every update, and the speeds that come of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from causerie.core import Run
from causerie.train.config import TrainSettings
from causerie.train.gradients import Sums
from causerie.train.meter import CONVENTION, goodput, time_shares
from causerie.train.sinks import Sink, figures_only, open_sinks


@dataclass
class Diary:
    """Writes a run's events, to its own file and where else `report_to` says, and remembers rates and losses."""

    run: Run
    settings: TrainSettings
    flops_per_token: float
    peak: float = 0.0
    """FLOP/s of matrix products of all processes together; 0 where it was not measured."""
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _sinks: list[Sink] = field(default_factory=list)

    def begin(self, device: str, processes: int) -> None:
        """Note that a sitting begins."""
        self._sinks = open_sinks(self.settings.report_to, self.run)
        self.run.log("sitting", device=device, processes=processes, flops_per_token=self.flops_per_token)

    def log(self, event: str, step: int, figures: Mapping[str, Any], **more: float) -> None:
        """One event with its figures; `more` goes to the run's own file only."""
        self.run.log(event, step=step, **figures, **more)
        for sink in self._sinks:
            sink.log(event, step, figures_only(figures))

    def evaluated(self, event: str, step: int, figures: Mapping[str, Any], seconds: float) -> None:
        """What a callback found, and how long it took: time that goodput counts as useful."""
        self.log(event, step, figures, evaluation_seconds=round(seconds, 4))

    def step(
        self,
        step: int,
        sums: Sums,
        lr: float,
        tokens: int,
        seconds: float,
        cpu_seconds: float,
        passed: float,
        done: float,
    ) -> None:
        """An update that was applied.

        Args:
            step: its number, from 0.
            sums: its loss, gradient norm and metrics.
            lr: learning rate of the first group.
            tokens: seen by the whole run.
            seconds, cpu_seconds: of this update.
            passed: seconds of the whole run.
            done: share of the run that is behind.
        """
        self.losses.append(sums.loss)
        rate = sums.seen / max(seconds, 1e-9)
        self.rates.append(rate)
        flops = rate * self.flops_per_token
        figures: dict[str, Any] = {
            "loss": round(sums.loss, 6),
            "lr": lr,
            "grad_norm": round(sums.grad_norm, 5),
            "tokens": tokens,
            "tokens_per_second": round(rate, 1),
            "gflops_per_second": round(flops / 1e9, 2),
            "step_seconds": round(seconds, 5),
            "cpu_seconds": round(cpu_seconds, 5),
            "seconds": round(passed, 2),
            "seconds_left": round(passed * (1 - done) / done, 1) if done else None,
        }
        if self.peak:
            figures["peak_share"] = round(flops / self.peak, 4)
        figures |= {name: round(value, 6) for name, value in sums.metrics.items()}
        self.log("step", step, figures)

    def shown(self, step: int) -> dict[str, float | int | str]:
        """What stands beside the progress bar."""
        if not self.losses:
            return {}
        figures: dict[str, float | int | str] = {"step": step, "loss": self.losses[-1], "tok/s": self.rates[-1]}
        if self.peak:
            figures["of peak"] = f"{self.rates[-1] * self.flops_per_token / self.peak:.0%}"
        return figures

    def tokens_per_second(self) -> float:
        """Median over this sitting's updates, the first three left out."""
        rates = self.rates[3:] or self.rates
        return round(statistics.median(rates), 1) if rates else 0.0

    def peak_share(self) -> float:
        """Median share of the measured peak; 0 where there is none. Convention: `meter.CONVENTION`."""
        return round(self.tokens_per_second() * self.flops_per_token / self.peak, 4) if self.peak else 0.0

    def last_loss(self) -> float:
        """Mean loss of the last ten updates."""
        return statistics.fmean(self.losses[-10:]) if self.losses else math.nan

    def goodput(self) -> float:
        """Share of the sittings' time that went into updates that count and evaluations."""
        return round(goodput(self.run.path), 4)

    def evaluation_share(self) -> float:
        """Share of the sittings' time that went into evaluations."""
        return round(time_shares(self.run.path).evaluations, 4)

    def close(self) -> None:
        """Close the sinks."""
        self.run.log("sitting_end", convention=CONVENTION)
        for sink in self._sinks:
            sink.close()
