"""The best layout of a model on a number of devices: every spread that fits in memory is timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from causerie.core import CauserieError
from causerie.plan.blueprint import Blueprint
from causerie.plan.hardware import Hardware
from causerie.plan.held import Held, held_bytes
from causerie.plan.layout import Layout, Precision, Recompute, Shard, check_layout
from causerie.plan.step import Step, step_time

HEADROOM: Final = 0.92
"""Share of a device's memory that a layout may fill: the rest is the runtime's and fragmentation."""
LARGEST_MICRO: Final = 8
CHUNKS: Final = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Found:
    """A layout that fits, its memory and its time."""

    layout: Layout
    held: Held
    step: Step


@dataclass(frozen=True)
class Search:
    """The best layouts, fastest first, and how many were looked at."""

    best: tuple[Found, ...]
    tried: int
    possible: int
    fitting: int


def divisors(value: int) -> list[int]:
    """Divisors in order."""
    small = [n for n in range(1, int(value**0.5) + 1) if value % n == 0]
    return small + [value // n for n in reversed(small) if n * n != value]


def search_layouts(
    plan: Blueprint, machine: Hardware, devices: int, *, global_batch: int, seq_len: int, precision: Precision = "bf16",
    keep: int = 5,
) -> Search:  # fmt: skip
    """Time every layout that divides the devices and fits in memory.

    Raises:
        CauserieError: CAU-4308 when none fits, saying what the smallest would need; CAU-4301 for bad numbers.
    """
    for name, value in (("devices", devices), ("global_batch", global_batch), ("seq_len", seq_len)):
        if not isinstance(value, int) or value < 1:
            raise CauserieError("CAU-4301", f"{name} is {value!r}", where=name, fix="give an integer of at least 1")
    found: list[Found] = []
    tried = possible = 0
    least: tuple[float, Layout] | None = None
    for layout in candidates(plan, machine, devices, global_batch, seq_len, precision):
        tried += 1
        try:
            check_layout(plan, layout, machine)
        except CauserieError:
            continue
        possible += 1
        held = held_bytes(plan, layout)
        if least is None or held.total < least[0]:
            least = (held.total, layout)
        if held.total <= machine.memory * HEADROOM:
            found.append(Found(layout, held, step_time(plan, layout, machine)))
    if not found:
        raise _none_fits(plan, machine, devices, global_batch, least)
    found.sort(key=lambda item: (item.step.seconds, item.held.total))
    return Search(tuple(found[:keep]), tried, possible, len(found))


def candidates(
    plan: Blueprint, machine: Hardware, devices: int, global_batch: int, seq_len: int, precision: Precision
) -> Iterator[Layout]:
    """Spreads worth a look: tensor inside a node, context and pipeline and data over what is left."""
    for tensor in divisors(min(devices, machine.node)):
        if devices % tensor or plan.shape.n_head % tensor:
            continue
        for context in _contexts(devices // tensor, seq_len):
            rest = devices // tensor // context
            for pipeline in divisors(rest):
                if pipeline <= plan.shape.n_layer and global_batch % (rest // pipeline) == 0:
                    yield from _details(
                        plan, Layout(global_batch, seq_len, rest // pipeline, tensor, pipeline, context), precision
                    )


def _contexts(rest: int, seq_len: int) -> list[int]:
    """Spreads of a sequence: only for long ones, not below 4,096 tokens a device."""
    return [n for n in divisors(rest) if n == 1 or (seq_len % n == 0 and seq_len // n >= 4096)]


def _details(plan: Blueprint, base: Layout, precision: Precision) -> Iterator[Layout]:
    experts = [1]
    if plan.experts:
        experts = [n for n in divisors(plan.experts.count) if base.data % n == 0]
    rows = base.global_batch // base.data
    micros = [n for n in (1, 2, 4, LARGEST_MICRO) if rows % n == 0]
    shards: tuple[Shard, ...] = ("optimizer", "full") if base.pipeline == 1 else ("optimizer",)
    modes: tuple[Recompute, ...] = ("none", "full")
    for expert in experts:
        for micro in micros:
            chunks = [n for n in CHUNKS if n == 1 or _may_interleave(plan, base, rows // micro, n)]
            for interleave in chunks:
                for shard in shards:
                    for mode in modes:
                        yield replace(
                            base, expert=expert, micro_batch=micro, interleave=interleave, shard=shard,
                            recompute=mode, precision=precision,
                        )  # fmt: skip


def _may_interleave(plan: Blueprint, base: Layout, micro_batches: int, chunks: int) -> bool:
    parts = base.pipeline * chunks
    return base.pipeline > 1 and plan.shape.n_layer % parts == 0 and micro_batches % base.pipeline == 0


def _none_fits(
    plan: Blueprint, machine: Hardware, devices: int, batch: int, least: tuple[float, Layout] | None
) -> CauserieError:
    if least is None:
        cause = f"no spread over {devices} devices divides the batch of {batch} and the model's layers and heads"
        fix = "choose devices and global_batch with more common divisors, such as powers of two"
        return CauserieError("CAU-4308", cause, where="devices, global_batch", fix=fix)
    gib = 1024**3
    cause = (
        f"{plan.name} does not fit: the smallest layout ({least[1].words()}) holds {least[0] / gib:.0f} GiB "
        f"on a device of {machine.memory / gib:.0f} GiB"
    )
    return CauserieError("CAU-4308", cause, where="devices", fix="take more devices, or ones with more memory")
