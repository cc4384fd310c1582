"""Where the content of files is: one file each in a folder of the workspace, whole or absent."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from causerie.core import write_atomic
from causerie.serve.errors import ApiError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class FileSpace:
    """The folder of file contents. Its methods block: call them in a thread.

    Args:
        folder: made when it is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, id: str) -> Path:
        """Where a file's content is; ids that are no plain names have none.

        Raises:
            ApiError: 404.
        """
        if not _NAME.fullmatch(id):
            raise ApiError(404, "there is no such file", code="not_found", param="file_id")
        return self._folder / id

    def save(self, id: str, content: IO[bytes]) -> int:
        """Write a content; returns its length in bytes."""
        place, part = self.path(id), self._folder / f"{id}.part"
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            shutil.copyfileobj(content, file, 2**20)
            file.flush()
            os.fsync(file.fileno())
            length = file.tell()
        part.replace(place)
        return length

    def save_bytes(self, id: str, content: bytes) -> int:
        """Write a content that is in memory; returns its length."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path(id), content)
        return len(content)

    def join(self, id: str, parts: Sequence[str]) -> tuple[int, str]:
        """Write the parts one after the other as one content; returns its length and MD5 (a checksum, no secret)."""
        digest = hashlib.md5(usedforsecurity=False)
        place, whole = self.path(id), self._folder / f"{id}.part"
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(whole, "wb") as file:
            for part in parts:
                with open(self.path(part), "rb") as source:
                    while piece := source.read(2**20):
                        digest.update(piece)
                        file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            length = file.tell()
        whole.replace(place)
        return length, digest.hexdigest()

    def read(self, id: str) -> bytes:
        """A content as it was written.

        Raises:
            ApiError: 404.
        """
        try:
            return self.path(id).read_bytes()
        except FileNotFoundError as error:
            raise ApiError(404, "the file's content is gone", code="not_found", param="file_id") from error

    def drop(self, id: str) -> None:
        """Remove a content, if it is there."""
        self.path(id).unlink(missing_ok=True)
