"""The whole circle once, small and offline: pages → model → answers → choices → a better model → the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.demo.config import ASSETS, DemoConfig
from causerie.demo.errors import ERRORS

if TYPE_CHECKING:
    from causerie.demo.circle import run_demo, serve_demo
    from causerie.demo.export import export_gguf, export_version

__getattr__ = lazy_names(
    __name__,
    {"run_demo": "circle", "serve_demo": "circle", "export_gguf": "export", "export_version": "export"},
)

__all__ = ["ASSETS", "ERRORS", "DemoConfig", "export_gguf", "export_version", "run_demo", "serve_demo"]
