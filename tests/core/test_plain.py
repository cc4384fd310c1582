"""Results as plain JSON values."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from causerie.core import plain


@dataclass(frozen=True)
class Inner:
    where: Path


@dataclass
class Outer:
    counts: Counter[str] = field(default_factory=lambda: Counter(a=2))
    inner: tuple[Inner, ...] = (Inner(Path("x/y")),)


def test_counters_paths_and_nested_dataclasses_become_json() -> None:
    value = plain(Outer())
    assert value == {"counts": {"a": 2}, "inner": [{"where": "x/y"}]}
    assert json.loads(json.dumps(value)) == value
