"""The loop: what people said becomes a candidate, and the gate decides whether it serves. Needs torch to run."""

from causerie.core import lazy_names
from causerie.loop.config import GUARD_FILE, ImproveConfig
from causerie.loop.errors import ERRORS
from causerie.loop.gate import GateRow, Verdict, judge

__getattr__ = lazy_names(__name__, {"Improved": "improve", "improve": "improve"})

__all__ = ["ERRORS", "GUARD_FILE", "GateRow", "ImproveConfig", "Improved", "Verdict", "improve", "judge"]
