"""The build configuration on its way to other processes and back from manifests."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from causerie.data.config import DataBuildConfig

TUPLES: Final = ("sources", "languages", "max_top_ngrams", "max_repeated_ngrams", "weights")


def config_from_json(value: dict[str, Any]) -> DataBuildConfig:
    """A configuration from its plain values, without the fields that only the parent needs."""
    known = {field.name for field in fields(DataBuildConfig)} - {"out", "decontaminate", "after", "without"}
    given: dict[str, Any] = {name: tuple(item) if name in TUPLES else item for name, item in value.items()}
    if given.get("quality_model") is not None:
        given["quality_model"] = Path(given["quality_model"])
    return DataBuildConfig(**{name: item for name, item in given.items() if name in known})
