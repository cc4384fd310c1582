"""From a step to a bill: goodput under failures, days, energy, price.

With checkpoints every tau seconds that take delta seconds, failures every M seconds and a restart of R seconds, the
share of useful time is about 1 - delta / tau - (tau / 2 + R) / M; the best tau is sqrt(2 delta M) (Young 1974). Daly
(2006) gives the next terms, which matter when delta nears M, and the exact time that `goodput` uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from causerie.core import CauserieError
from causerie.plan.blueprint import Blueprint
from causerie.plan.hardware import Hardware
from causerie.plan.layout import Layout
from causerie.plan.step import Step

DISK: Final = 2e9
"""Bytes per second that one node writes to storage for a checkpoint."""
RESTART: Final = 300.0
"""Seconds from a failure to training again: with them Llama 3's 419 interruptions leave the 90 % that it reports."""
STATE: Final = 14
"""Bytes of a parameter in a checkpoint: bf16 weights, float32 master weights and two moments."""


@dataclass(frozen=True)
class Goodput:
    """What failures and checkpoints leave."""

    mtbf_seconds: float
    """Between failures of any device."""
    checkpoint_seconds: float
    interval_seconds: float
    """Between checkpoints: Daly's."""
    share: float
    """Useful time over all time."""


@dataclass(frozen=True)
class Bill:
    """What a whole run takes."""

    steps: int
    days: float
    device_hours: float
    megawatt_hours: float
    dollars: float
    failures: float
    flops: float
    goodput: Goodput


def daly_interval(checkpoint: float, mtbf: float) -> float:
    """Best seconds between checkpoints: Daly's higher-order estimate (doi:10.1016/j.future.2004.11.016, equation 37).

    Raises:
        CauserieError: CAU-4301 when a number is not positive.
    """
    for name, value in (("checkpoint", checkpoint), ("mtbf", mtbf)):
        if not 0 < value < math.inf:
            raise CauserieError("CAU-4301", f"{name} is {value}", where=name, fix="give positive seconds")
    if checkpoint >= 2 * mtbf:
        return mtbf
    root = math.sqrt(checkpoint / (2 * mtbf))
    return math.sqrt(2 * checkpoint * mtbf) * (1 + root / 3 + root**2 / 9) - checkpoint


def goodput(devices: int, machine: Hardware, checkpoint: float, restart: float = RESTART) -> Goodput:
    """Share of useful time for a number of devices that fail independently."""
    mtbf = machine.mtbf_hours * 3600 / devices
    interval = daly_interval(checkpoint, mtbf)
    cycle = interval + checkpoint
    # exponential failures (Daly): time to finish a cycle = M e^(R/M) (e^(cycle/M) - 1)
    needed = mtbf * math.exp(min(50.0, restart / mtbf)) * math.expm1(min(50.0, cycle / mtbf))
    return Goodput(mtbf, checkpoint, interval, interval / needed)


def bill(plan: Blueprint, layout: Layout, machine: Hardware, step: Step, tokens: float) -> Bill:
    """What training on so many tokens takes.

    Raises:
        CauserieError: CAU-4301 when tokens is not a positive number.
    """
    if not 0 < tokens < math.inf:
        raise CauserieError("CAU-4301", f"tokens is {tokens}", where="tokens", fix="give a positive number")
    nodes = max(1, layout.devices // machine.node)
    checkpoint = max(1.0, plan.n_params * STATE / (nodes * DISK))
    good = goodput(layout.devices, machine, checkpoint)
    steps = math.ceil(tokens / layout.tokens)
    hours = steps * step.seconds / good.share / 3600
    from causerie.plan.count import training_flops

    return Bill(
        steps=steps, days=hours / 24, device_hours=hours * layout.devices,
        megawatt_hours=hours * layout.devices * machine.watts / 1e6,
        dollars=hours * layout.devices * machine.dollars, failures=hours * 3600 / good.mtbf_seconds,
        flops=tokens * training_flops(plan, layout.seq_len), goodput=good,
    )  # fmt: skip
