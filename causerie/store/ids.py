"""Ids and texts as the store takes them: random ids with a prefix, Unix times, texts that any database can hold."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from causerie.core import CauserieError

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that looks like a digit."""

LENGTH: Final = 16
"""Characters after the prefix: 80 random bits."""

_TO_CROCKFORD: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ALPHABET.encode("ascii"))


def new_id(prefix: str) -> str:
    """A fresh id such as `exp_4k2m…` (80 random bits after the prefix): hard to guess, safe in a URL."""
    random = base64.b32encode(secrets.token_bytes(LENGTH * 5 // 8)).translate(_TO_CROCKFORD)
    return f"{prefix}_{random.decode('ascii')}"


def now() -> float:
    """The present time in seconds since 1970 (UTC), to the millisecond: how every `created` column is stored."""
    return round(time.time(), 3)


def check_text(value: Any, where: str) -> None:
    """Refuse text that not every database can hold: U+0000 (PostgreSQL) and lone surrogates (no UTF-8).

    Args:
        value: a text, or lists and dictionaries of texts.
        where: field named in the error.

    Raises:
        CauserieError: CAU-1110.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise CauserieError("CAU-1110", "the text holds the NUL character", where=where, fix="remove U+0000")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            cause = f"the text holds half a surrogate pair at character {error.start}"
            raise CauserieError("CAU-1110", cause, where=where, fix="send valid UTF-8") from error
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(key, where)
            check_text(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_text(item, f"{where}[{index}]")
