"""Configuration of `causerie models import starter`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class StarterConfig:
    """What to import."""

    vocabulary: Literal["full", "en-fr"] = "en-fr"
    """All 262,144 tokens, or those that English and French use (smaller and faster; see docs/guides/starter.md)."""
    name: str = "gemma-3-270m"
    """Name of the model artifact; the adapter's is `NAME-chat`."""
    adapter: bool = True
    """Also make the artifact of the adapter that ships with the project."""
    out: Path | None = None
    """Write the model exactly here (and the adapter to `OUT-chat`) instead of into the workspace."""
