"""The vocabulary cut: which of Gemma's 262,144 tokens English and French keep.

The cut ships as a bitmap over old token ids, made by `scripts/cut_vocabulary.py` from English and French text, so
that an import needs no data. Text made of kept tokens is tokenised as before; a dropped token falls apart into
kept ones, in the end into bytes, so that every text can still be written.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Final, Literal

import numpy as np

from causerie.core import CauserieError

FULL_SIZE: Final = 262_144


def kept_ids(vocabulary: Literal["full", "en-fr"]) -> list[int] | None:
    """Old ids of the tokens that a cut keeps, ascending; None for the full vocabulary.

    Raises:
        CauserieError: CAU-4403 when the shipped list is damaged.
    """
    if vocabulary == "full":
        return None
    name = f"vocabulary-{vocabulary}.npy"
    try:
        with as_file(files("causerie.starter").joinpath("assets", name)) as path:
            bits = np.unpackbits(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(name, str(error)) from error
    if bits.shape != (FULL_SIZE,):
        raise _damaged(name, f"{bits.size} bits where {FULL_SIZE} were expected")
    return [int(number) for number in np.flatnonzero(bits)]


def _damaged(name: str, cause: str) -> CauserieError:
    fix = "reinstall the package"
    return CauserieError("CAU-4403", f"a shipped file cannot be used: {cause}", where=f"starter/assets/{name}", fix=fix)
