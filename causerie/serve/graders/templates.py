"""Templates of graders: texts with slots for what is graded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_SLOT: Final = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}")


def fill(template: str, known: Mapping[str, Any]) -> str:
    """A template with its slots filled; an unknown slot becomes nothing.

    Args:
        template: a text with `{{item.field}}` or `{{sample.output_text}}`.
        known: `{"item": {...}, "sample": {...}}`.
    """

    def value(match: re.Match[str]) -> str:
        found: Any = known
        for part in match.group(1).split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is None:
            return ""
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)

    return _SLOT.sub(value, template)
