"""Configuration of `causerie demo`, and the two sizes it comes in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ASSETS: Final = Path(__file__).parent / "assets"
"""What ships with the demo: pages, instructions, human choices (licences in its README)."""


@dataclass(frozen=True)
class DemoConfig:
    """The whole circle once, small and offline."""

    serve: bool = True
    """Serve the page at the end; --no-serve ends with the summary."""
    size: Literal["small", "tiny"] = "small"
    """small is the demo (about five minutes on two quiet cores); tiny is the same circle for tests."""
    starter: bool = True
    """Serve the starter (Gemma 3 270M, its own terms) beside the model just trained, if its packages are there."""
    host: str = "127.0.0.1"
    """Address to serve on."""
    port: int = 8321
    """Port to serve on; the next free one if it is taken."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Scale:
    """How much of everything a demo of one size does."""

    sample: float
    """Share of the pages that is read."""
    vocab_size: int
    depth: int
    seq_len: int
    batch_size: int
    pretrain_tokens: int
    sft_steps: int
    choices: int
    """Human choices imported at most; 0 imports all."""
    guard_rows: int
    guard_prompts: int
    """Prompts that both versions answer for the gate."""
    compile: Literal["auto", "on", "off"]


SCALES: Final = {
    "small": Scale(1.0, 4096, 4, 256, 16, 2_200_000, 240, 0, 48, 48, "auto"),
    "tiny": Scale(0.15, 1024, 2, 128, 8, 60_000, 12, 80, 12, 6, "off"),
}
"""The demo's sizes by name."""
