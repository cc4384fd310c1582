"""The engine: continuous batching over a block cache in its own process; the client side is free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.infer.client import EngineClient
from causerie.infer.config import EngineConfig
from causerie.infer.request import Completion, Event, Finish, Grammar, Sampling, join_events

if TYPE_CHECKING:
    from causerie.infer.engine import Engine
    from causerie.infer.generate import generate_batch

__all__ = [
    "Completion",
    "Engine",
    "EngineClient",
    "EngineConfig",
    "Event",
    "Finish",
    "Grammar",
    "Sampling",
    "generate_batch",
    "join_events",
]

__getattr__ = lazy_names(__name__, {"Engine": "engine", "generate_batch": "generate"})
