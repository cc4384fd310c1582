"""What a folder or file is, by its content."""

from __future__ import annotations

from pathlib import Path

from causerie.core import CauserieError, read_manifest, sha256_file, sha256_json


def content_key(path: Path) -> str:
    """Key of an artifact folder; of any other folder or file, a digest of everything in it.

    Raises:
        CauserieError: CAU-1001 when there is nothing.
    """
    if (path / "manifest.json").is_file():
        return read_manifest(path).key
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise CauserieError("CAU-1001", "no such file or folder", where=str(path), fix="check the path")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256_json({file.relative_to(path).as_posix(): sha256_file(file) for file in files})
