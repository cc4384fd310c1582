"""Where things are: the workspace and the optional data pack."""

from __future__ import annotations

import os
from pathlib import Path


def workspace_path(given: Path | None = None) -> Path:
    """The workspace folder: the argument, else `CAUSERIE_WORKSPACE`, else `./workspace`; absolute, not created."""
    return Path(given or os.environ.get("CAUSERIE_WORKSPACE") or "workspace").expanduser().absolute()


def data_pack() -> Path | None:
    """The larger data pack (`CAUSERIE_DATA`, default `../shared/data`), or None when it is not there."""
    folder = Path(os.environ.get("CAUSERIE_DATA") or "../shared/data").expanduser().absolute()
    return folder if (folder / "README.md").is_file() else None
