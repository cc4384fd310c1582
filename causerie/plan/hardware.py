"""The hardware table: what one device of a kind computes, holds, moves, draws and costs.

Peaks, memory and links are the makers' data sheets. `efficiency` is the one fitted constant of a generation: the share
of its peak that a large product of matrices reaches (docs/decisions/0019). `memory_share`, `link_share` and the
latencies are the same for every GPU: what STREAM and NCCL's own tests reach of a data sheet's bandwidth.
Prices are list prices of an hour on demand, rounded, and meant to be overridden.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from causerie.core import CauserieError

GIB: Final = 1024**3


@dataclass(frozen=True)
class Hardware:
    """One row of the table; bandwidths in bytes per second and direction."""

    name: str
    peak: float
    """Dense bf16 FLOP per second."""
    memory: float
    """Bytes a device has."""
    bandwidth: float
    """Bytes per second between a device and its memory."""
    node: int
    """Devices joined by the fast link."""
    link: float
    """Bytes per second out of a device to others of its node."""
    network: float
    """Bytes per second out of a device to other nodes: its share of the node's network."""
    watts: float
    """Power of a device with its share of the host, fans and losses."""
    dollars: float
    """Price of a device for an hour."""
    efficiency: float
    """Share of the peak that large products reach; fitted once per generation."""
    fitted_on: str
    """What `efficiency` was fitted on; "assumed" where nothing was."""
    mtbf_hours: float
    """Mean time between failures of one device, with its share of host and network."""
    memory_share: float = 0.9
    """Share of `bandwidth` that long reads and writes reach."""
    link_share: float = 0.75
    """Share of `link` that collectives reach."""
    network_share: float = 0.9
    """Share of `network` that collectives reach."""
    launch: float = 5e-6
    """Seconds to start a kernel."""
    latency: float = 25e-6
    """Seconds that a collective takes however short it is."""


_LLAMA_MTBF: Final = 16_384 * 54 * 24 / 419
"""Hours of one H100: 419 interruptions in 54 days on 16,384 (arXiv:2407.21783, section 3.3.4)."""

_ROWS: Final = (
    Hardware("a100-40gb", 312e12, 40 * GIB, 1.555e12, 8, 300e9, 25e9, 700, 1.80, 0.80, "a100", _LLAMA_MTBF),
    Hardware("a100-80gb", 312e12, 80 * GIB, 2.039e12, 8, 300e9, 25e9, 700, 2.20, 0.80, "a100", _LLAMA_MTBF),
    Hardware("h100-80gb", 989.4e12, 80 * GIB, 3.35e12, 8, 450e9, 50e9, 1275, 3.00, 0.675, "h100", _LLAMA_MTBF),
    Hardware("h200-141gb", 989.4e12, 141e9, 4.8e12, 8, 450e9, 50e9, 1275, 3.60, 0.675, "h100", _LLAMA_MTBF),
    Hardware("b200-192gb", 2250e12, 180e9, 8.0e12, 8, 900e9, 50e9, 1800, 6.00, 0.65, "assumed", _LLAMA_MTBF),
    Hardware("tpu-like", 459e12, 95 * GIB, 2.765e12, 64, 300e9, 25e9, 650, 4.20, 0.75, "assumed", _LLAMA_MTBF),
    Hardware(
        "arm-cpu", 2.6e12, 256 * GIB, 0.3e12, 1, 0.1e12, 6e9, 350, 2.50, 0.50, "assumed", 100_000,
        launch=3e-6, latency=20e-6,
    ),
    Hardware(
        "two-cores", 0.425e12, 24 * GIB, 48e9, 1, 10e9, 1e9, 30, 0.08, 0.70, "two-cores", 100_000,
        launch=8e-6, latency=20e-6,
    ),
)  # fmt: skip

HARDWARE: Final[Mapping[str, Hardware]] = MappingProxyType({row.name: row for row in _ROWS})
"""Name → row. TPU-like: a chip of the v5p class; arm-cpu: 128 Neoverse N2 cores, the class of Cobalt 100."""


def hardware(name: str, *, dollars: float | None = None) -> Hardware:
    """A row of the table, with another price when one is given.

    Raises:
        CauserieError: CAU-4307 when the name is unknown or the price negative.
    """
    if name not in HARDWARE:
        near = difflib.get_close_matches(name, HARDWARE, n=2, cutoff=0.5) or list(HARDWARE)
        raise CauserieError(
            "CAU-4307", f"no hardware is called {name!r}", where="hardware", fix=f"choose from {', '.join(near)}"
        )
    if dollars is None:
        return HARDWARE[name]
    if not 0 <= dollars < float("inf"):
        raise CauserieError("CAU-4307", f"dollars is {dollars}", where="dollars", fix="give a price of 0 or more")
    return replace(HARDWARE[name], dollars=dollars)
