"""The starter in the registry: the base as its first version, base and adapter as the one that serves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from causerie.hub import Version, get_version, list_versions, promote, register
from causerie.starter.adapter import add_starter_adapter
from causerie.starter.config import StarterConfig
from causerie.starter.gemma import import_starter
from causerie.starter.package import LICENCE
from causerie.store import Store

NAME: Final = "starter"
"""Registry name of the starter."""


def register_starter(config: StarterConfig, workspace: Path, store: Store) -> Version:
    """Import the starter if need be and register it; returns the version that its name stands for.

    Raises:
        CauserieError: CAU-4401 to CAU-4403, see `ERRORS`.
    """
    base = import_starter(replace(config, adapter=False), workspace)
    first = register(store, workspace, NAME, base, licence=LICENCE, actor="starter")
    adapter = add_starter_adapter(config, workspace, base) if config.adapter else None
    chat = first
    if adapter is not None:
        chat = register(store, workspace, NAME, adapter, parents=[first.ref], licence=LICENCE, actor="starter")
    if any(version.status == "promoted" for version in list_versions(store, NAME)):
        return get_version(store, NAME)
    return promote(store, chat.ref, actor="starter", reason="the starter as it ships")
