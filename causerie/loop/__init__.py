"""The loop: what people said becomes a candidate, the gate and a canary decide whether it serves.

Turning it needs torch; looking at a canary does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.loop.canary import (
    Canary,
    decide,
    list_canaries,
    review_canary,
    running_canary,
    start_canary,
    stop_canary,
)
from causerie.loop.config import GUARD_FILE, CanaryConfig, ImproveConfig
from causerie.loop.duels import Duels, LiveVote, duels
from causerie.loop.errors import ERRORS
from causerie.loop.gate import GateRow, Verdict, judge
from causerie.loop.material import used_before
from causerie.loop.sequential import confidence_sequence, log_evidence, log_evidence_path

if TYPE_CHECKING:
    from causerie.loop.protocol import Rule, rules
    from causerie.loop.rows import gate_rows
    from causerie.loop.schedule import keep_improving
    from causerie.loop.turn import Improved, improve

__getattr__ = lazy_names(
    __name__,
    {
        "Improved": "turn",
        "Rule": "protocol",
        "gate_rows": "rows",
        "improve": "turn",
        "keep_improving": "schedule",
        "rules": "protocol",
    },
)

__all__ = [
    "ERRORS",
    "GUARD_FILE",
    "Canary",
    "CanaryConfig",
    "Duels",
    "GateRow",
    "ImproveConfig",
    "Improved",
    "LiveVote",
    "Rule",
    "Verdict",
    "confidence_sequence",
    "decide",
    "duels",
    "gate_rows",
    "improve",
    "judge",
    "keep_improving",
    "list_canaries",
    "log_evidence",
    "log_evidence_path",
    "review_canary",
    "rules",
    "running_canary",
    "start_canary",
    "stop_canary",
    "used_before",
]
