"""Measured training speeds that others published, and what the step model says of them.

Nothing here feeds the model except `efficiency` of the hardware table: the A100's was fitted to `MEGATRON`'s eight
rows, the H100's to Nemotron-4's one. The tables of llm-foundry and BLOOM are read from files and were never fitted to.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError
from causerie.model import ModelShape
from causerie.plan.blueprint import blueprint, blueprint_of
from causerie.plan.hardware import Hardware, hardware
from causerie.plan.held import activation_bytes
from causerie.plan.layout import Layout, Recompute
from causerie.plan.step import step_time

MEGATRON: Final = (
    ("megatron-22b", 1, 1, 4, 4, 1.42, 1.10),
    ("megatron-175b", 8, 3, 64, 1, 18.13, 13.75),
    ("megatron-530b", 35, 3, 280, 1, 49.05, 37.83),
    ("megatron-1t", 64, 1, 512, 1, 94.42, 71.49),
)
"""Model, stages, chunks, batch, micro-batch, seconds with full and with selective recomputation and sequence
parallelism: arXiv:2205.05198, table 5; A100-80GB, tensor parallel 8, 2,048 tokens."""

MEGATRON_ACTIVATIONS: Final = (
    ("megatron-22b", 59.25, 9.5625),
    ("megatron-175b", 66.84375, 12.3515625),
    ("megatron-530b", 114.0234375, 23.076171875),
    ("megatron-1t", 131.25, 26.5625),
)
"""GiB of activations without recomputation, and with selective and sequence parallelism: figure 1 of the same paper,
read by calculon-ai/calculon."""

TWO_CORES: Final = ((4, 192, 512, 15_238), (6, 256, 768, 6_099), (8, 384, 1_024, 2_785), (10, 512, 1_376, 1_322))
"""Layers, width, MLP, tokens/s: our own measurements on two quiet Zen 4 cores with AVX512-BF16, bf16 and compiled,
16 rows of 256 tokens, vocabulary 4,096, heads of 64. `two-cores`' efficiency was fitted to them."""

CONSISTENT: Final = 0.15
"""BLOOM rows whose seconds and TFLOPs (8 x parameters x tokens) differ by more contradict themselves: left out."""


@dataclass(frozen=True)
class Comparison:
    """One measured run: seconds (or another quantity) predicted and measured."""

    name: str
    group: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Predicted over measured, minus 1."""
        return self.predicted / self.measured - 1


def summary(rows: Sequence[Comparison]) -> dict[str, float]:
    """Rows, mean and largest size of the error, median size and median."""
    sizes = sorted(abs(row.error) for row in rows)
    signed = sorted(row.error for row in rows)
    middle = len(rows) // 2
    return {
        "rows": len(rows), "mean": sum(sizes) / len(sizes), "max": sizes[-1], "median": sizes[middle],
        "bias": signed[middle],
    }  # fmt: skip


def megatron_layout(stages: int, chunks: int, batch: int, micro: int, mode: Recompute) -> Layout:
    """The layout of a row of `MEGATRON`; sequence parallelism goes with selective recomputation."""
    return Layout(
        batch, 2048, tensor=8, pipeline=stages, micro_batch=micro, interleave=chunks, recompute=mode,
        sequence=mode == "selective", shard="none", kernels="classic",
    )  # fmt: skip


def megatron_times(machine: Hardware | None = None) -> list[Comparison]:
    """The eight iteration times."""
    machine = machine or hardware("a100-80gb")
    found = []
    for name, stages, chunks, batch, micro, full, selective in MEGATRON:
        modes: tuple[tuple[Recompute, float], ...] = (("full", full), ("selective", selective))
        for mode, seconds in modes:
            layout = megatron_layout(stages, chunks, batch, micro, mode)
            step = step_time(blueprint(name), layout, machine)
            found.append(Comparison(f"{name} {mode}", "megatron", step.seconds, seconds))
    return found


def megatron_activations() -> list[Comparison]:
    """The eight activation memories, in GiB."""
    found = []
    for (name, stages, chunks, batch, micro, *_), (_, none, selective) in zip(
        MEGATRON, MEGATRON_ACTIVATIONS, strict=True
    ):
        modes: tuple[tuple[Recompute, float], ...] = (("none", none), ("selective", selective))
        for mode, size in modes:
            layout = megatron_layout(stages, chunks, batch, micro, mode)
            held = activation_bytes(blueprint(name), layout) / 1024**3
            found.append(Comparison(f"{name} {mode}", "activations", held, size))
    return found


def nemotron_layout() -> Layout:
    """Nemotron-4 340B on 6,144 H100: 8 x 12 x 64, 8.0 s for 2,304 sequences of 4,096 (arXiv:2406.11704, table 2)."""
    return Layout(
        2304, 4096, data=64, tensor=8, pipeline=12, interleave=8, recompute="selective", shard="optimizer",
    )  # fmt: skip


def nemotron_time(machine: Hardware | None = None) -> Comparison:
    """The H100's anchor."""
    step = step_time(blueprint("nemotron4-340b"), nemotron_layout(), machine or hardware("h100-80gb"))
    return Comparison("nemotron4-340b", "anchor", step.seconds, 8.0)


def two_cores_times() -> list[Comparison]:
    """Seconds per update of the four small models on two cores; the exact shapes were not noted, sizes are near."""
    layout, found = Layout(16, 256, micro_batch=16, recompute="none", shard="none"), []
    for layers, width, ffn, rate in TWO_CORES:
        heads = width // 64
        shape = ModelShape("qwen3", layers, width, heads, heads, 64, ffn, 4096)
        step = step_time(blueprint_of(shape), layout, hardware("two-cores"))
        found.append(Comparison(f"{layers}x{width}", "two-cores", step.seconds, layout.tokens / rate))
    return found


def llmfoundry_times(path: Path) -> tuple[list[Comparison], int]:
    """Seconds per update of the MPT benchmarks (`throughput_llmfoundry.csv`), and how many rows could not be read.

    FSDP over all devices; `Activation Checkpointing` is full recomputation, SHARD_GRAD_OP gathers weights once.
    """
    found, unread = [], 0
    for row in _rows(path):
        try:
            found.append(_llmfoundry(row))
        except (KeyError, ValueError, ZeroDivisionError, CauserieError):
            unread += 1
    return found, unread


def _llmfoundry(row: dict[str, str]) -> Comparison:
    devices, length = int(row["# GPUs"]), int(row["SeqLen (T)"])
    names = {"h100_80gb": "h100-80gb", "a100_80gb": "a100-80gb", "a100_40gb": "a100-40gb"}
    machine = hardware(names[row["GPU"]])
    layout = Layout(
        int(row["GlobalBatchSize"]), length, data=devices, micro_batch=int(row["MicroBatchSize"]),
        recompute="full" if row["Activation Checkpointing"] == "True" else "none",
        shard="full", sequence=False, precision="fp8" if row["Precision"] == "amp_fp8" else "bf16",
    )  # fmt: skip
    seconds = int(row["GlobalBatchSize (T)"]) / (float(row["Throughput (T/s/GPU)"]) * devices)
    predicted = step_time(blueprint(f"mpt-{row['Model']}"), layout, machine).seconds
    name = f"{row['Model']} x{devices} {length} tokens {row['Precision']}"
    return Comparison(name, f"{machine.name} {row['Precision']}", predicted, seconds)


def bloom_times(path: Path) -> tuple[list[Comparison], int]:
    """Seconds per iteration of BLOOM's sizing runs (`throughput_bigscience_tr11.csv`), and the rows left out.

    A100-80GB, four 100 Gb/s ports a node of eight (6.25 GB/s a device), full recomputation, ZeRO-1, unfused attention.
    Widths and layers are often missing in the table: the nearest whole number of layers of the given (or BLOOM's)
    width is taken, and the time is scaled by the parameters that are missing.
    """
    found, left = [], 0
    machine = replace(hardware("a100-80gb"), network=6.25e9)
    for row in _rows(path):
        try:
            found.append(_bloom(row, machine))
        except (KeyError, ValueError, ZeroDivisionError, CauserieError):
            left += 1
    return found, left


def _bloom(row: dict[str, str], machine: Hardware) -> Comparison:
    size = float(re.sub(r"B$", "", row["Size"])) * 1e9
    width = int(row["NHIDDEN"] or 14_336)
    base = blueprint("bloom-176b")
    heads = int(row["NHEADS"] or 112)
    table = base.shape.vocab_size * width
    pipeline = int(row["PP"])
    layers = max(pipeline, round((size - table) / (12 * width**2)))
    shape = replace(
        base.shape, n_layer=layers, n_embd=width, ffn_dim=4 * width, n_head=heads, n_kv_head=heads,
        head_dim=max(1, width // heads),
    )  # fmt: skip
    plan = replace(base, shape=shape)
    tensor, nodes = int(row["TP"]), int(row["Nodes"])
    data = int(row["DP"] or 0) or max(1, nodes * 8 // (tensor * pipeline))
    micro = int(row["MBS"])
    batch = int(row["GBS"]) // (data * micro) * data * micro
    layout = Layout(
        batch, 2048, data=data, tensor=tensor, pipeline=pipeline, micro_batch=micro, recompute="full",
        sequence=False, kernels="classic",
    )  # fmt: skip
    seconds = float(row["Sec/it"])
    scale = (size / plan.n_params) * (int(row["GBS"]) / batch)
    predicted = step_time(plan, layout, machine).seconds * scale
    said = 8 * size * int(row["GBS"]) * 2048 / (seconds * nodes * 8e12)
    if not math.isfinite(seconds) or abs(said / float(row["TFLOPs"]) - 1) > CONSISTENT:
        raise ValueError("seconds and TFLOPs of the row contradict each other")
    return Comparison(f"{row['Size']} {data}x{tensor}x{pipeline} mbs {micro}", "bloom", predicted, seconds)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    except OSError as error:
        raise CauserieError("CAU-4302", str(error), where=str(path), fix="give a CSV of measured runs") from error
