"""Front doors that load nothing until a name is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """A module `__getattr__` for a room's `__init__`: maps public names to the submodules that define them.

    Used by rooms that need torch, so that `import causerie.model` costs nothing::

        __getattr__ = lazy_names(__name__, {"Transformer": "transformer"})
    """

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{where[name]}"), name)

    return get
