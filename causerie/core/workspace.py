"""Where things are: the workspace, the optional data pack, and what a folder of ours may be called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from causerie.core.errors import CauserieError

NAME_BYTES: Final = 200
"""Bytes of a name, at most: file systems take 255, and a key and a suffix are added."""


def workspace_path(given: Path | None = None) -> Path:
    """The workspace folder: the argument, else `CAUSERIE_WORKSPACE`, else `./workspace`; absolute, not created.

    Raises:
        CauserieError: CAU-1011 when it lies in a folder whose name is no UTF-8, or in the home of nobody.
    """
    try:
        path = Path(given or os.environ.get("CAUSERIE_WORKSPACE") or "workspace").expanduser().absolute()
        str(path).encode()
    except (RuntimeError, UnicodeEncodeError) as error:
        raise CauserieError(
            "CAU-1011", f"it cannot be used: {error}"[:200], where="--workspace", fix="choose another --workspace"
        ) from error
    return path


def folder_name(name: str) -> str:
    """The name, if a folder may be called so: no slash, no dot at its beginning, no line break, not endless.

    Raises:
        CauserieError: CAU-1011.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if not name.strip() or not name.isprintable() or "/" in name or name[0] in ".-" or size > NAME_BYTES:
        fix = f"use letters, digits, dashes and dots, {NAME_BYTES} bytes at most; begin with a letter or digit"
        raise CauserieError("CAU-1011", f"{name[:80]!r} cannot be the name of a folder", where="--name", fix=fix)
    return name


def data_pack() -> Path | None:
    """The larger data pack (`CAUSERIE_DATA`, default `../shared/data`), or None when it is not there."""
    folder = Path(os.environ.get("CAUSERIE_DATA") or "../shared/data").expanduser().absolute()
    return folder if (folder / "README.md").is_file() else None
