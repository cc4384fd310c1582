"""The whole circle once, small and offline: pages → model → answers → choices → a better model → the page."""

from causerie.core import lazy_names
from causerie.demo.config import ASSETS, DemoConfig
from causerie.demo.errors import ERRORS

__getattr__ = lazy_names(__name__, {"demo": "circle"})

__all__ = ["ASSETS", "ERRORS", "DemoConfig", "demo"]
