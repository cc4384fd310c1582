"""The loop: what people said becomes a candidate, and the gate decides whether it serves. Needs torch to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.loop.config import GUARD_FILE, ImproveConfig
from causerie.loop.errors import ERRORS
from causerie.loop.gate import GateRow, Verdict, judge

if TYPE_CHECKING:
    from causerie.loop.turn import Improved, improve

__getattr__ = lazy_names(__name__, {"Improved": "turn", "improve": "turn"})

__all__ = ["ERRORS", "GUARD_FILE", "GateRow", "ImproveConfig", "Improved", "Verdict", "improve", "judge"]
