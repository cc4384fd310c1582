"""Speed: the machine's peak of matrix products, the share of it that a run reaches, and its goodput.

Convention, printed wherever a share is: training FLOPs per token are 6 × the parameters that are multiplied (output
projection in, embedding lookup out) + 12 · layers · heads · head_dim · T, causal attention not halved (PaLM,
appendix B, arXiv:2204.02311); the peak of a CPU is measured on the spot, that of a known GPU is its data sheet's dense
bf16 figure.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple

import torch

from causerie.core import read_events
from causerie.model import fastest_product

CONVENTION: Final = "6 x multiplied parameters + 12 L H Dh T per token, causal attention not halved"
KNOWN_PEAKS: Final = {"H200": 989.4e12, "H100": 989.4e12, "A100": 312e12}
"""Dense bf16 FLOP/s by a word in the GPU's name (data sheets; SXM)."""
SIZE: Final = {"cpu": 1024, "cuda": 8192}
ROUNDS: Final = 8


def matmul_peak(device: torch.device, bf16: bool) -> float:
    """FLOP/s of large square matrix products as training makes them, best of some; a known GPU's data sheet in bf16."""
    if device.type == "cuda" and bf16:
        name = torch.cuda.get_device_name(device)
        for word, peak in KNOWN_PEAKS.items():
            if word in name:
                return peak
    size = SIZE.get(device.type, 1024)
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(size, size, generator=torch.Generator().manual_seed(i)).to(device, dtype) for i in (0, 1))
    best = float("inf")
    for _ in range(ROUNDS):
        best = min(best, _seconds(a, b))
    return 2.0 * size**3 / best


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    fastest_product(a, b)
    if a.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


class TimeShares(NamedTuple):
    """Where the wall-clock time of a run's sittings went; the rest is lost: starting, saving, work done twice."""

    updates: float
    """In updates that counted."""
    evaluations: float
    """In evaluations and other callbacks, before, between and after them."""


def time_shares(run: Path) -> TimeShares:
    """Shares of the wall-clock time of all sittings, from the run's events; zeros where there are none.

    An update or evaluation that a killed sitting did and its successor did again counts once; the time between sittings
    is not known.
    """
    updates: dict[int, float] = {}
    evaluations: dict[tuple[str, int], float] = {}
    wall, began, last = 0.0, None, 0.0
    for row in read_events(run):
        if row["event"] == "sitting":
            wall += last - began if began is not None else 0.0
            began = row["time"]
        if row["event"] == "step":
            updates[row["step"]] = row["step_seconds"]
        if "evaluation_seconds" in row:
            evaluations[row["event"], row["step"]] = row["evaluation_seconds"]
        last = row["time"]
    wall += last - began if began is not None else 0.0
    if wall <= 0:
        return TimeShares(0.0, 0.0)
    return TimeShares(sum(updates.values()) / wall, sum(evaluations.values()) / wall)


def goodput(run: Path) -> float:
    """Share of the wall-clock time of all sittings in updates that counted and evaluations; or 0. See `time_shares`.

    Evaluations are useful: they were asked for, and a run is not better for leaving them out. What is lost is what a
    kill undoes, and what starting, checkpoints and skipped updates take.
    """
    return min(1.0, sum(time_shares(run)))
