"""stub being written"""
from typing import Any
def plan_write(config: Any) -> dict[str, Any]:
    """Being written."""
    raise NotImplementedError
