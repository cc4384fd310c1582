"""Writing safetensors files: what the library says of a full disk is the system's error again."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, contiguous ones on the CPU, to a safetensors file.

    Raises:
        OSError: when the disk is full or the folder cannot be written, with the system's number and the path; inside
            `write_artifact` it becomes CAU-1007.
    """
    try:
        save_file(tensors, path, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
