"""Seeds: every random stream is named, and its seed derived from the run's one seed."""

from __future__ import annotations

import hashlib


def seed_for(root: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of a run with seed `root`; equal inputs give equal seeds everywhere."""
    text = "\0".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
