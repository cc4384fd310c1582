"""Reading files that people attach: their text, taken out in a process of its own that can be killed.

A document is hostile until it is read: the process has limits of memory, processor time and output, sees the file on
its standard input and nothing else, and what it cannot read it refuses with a reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path, PurePath
from typing import Any, Final

from causerie.core import CauserieError

FILE_BYTES: Final = 20 << 20
"""Largest file that is read."""
TEXT_LENGTH: Final = 100_000
"""Characters of a file that are kept; the rest is cut, and said to be."""
SECONDS: Final = 30.0
CONVERTER: Final = Path(__file__).with_name("converting.py")
"""Run as a file: it needs nothing else of this package, and starts ten times as fast without it."""
KINDS: Final = {
    ".txt": "text", ".md": "text", ".csv": "text", ".json": "text", ".html": "text", ".xml": "text", ".log": "text",
    ".py": "text", ".js": "text", ".ts": "text", ".css": "text", ".yaml": "text", ".yml": "text", ".toml": "text",
    ".tex": "text", ".rst": "text", ".sh": "text", ".c": "text", ".h": "text", ".cpp": "text", ".rs": "text",
    ".go": "text", ".java": "text", ".sql": "text", ".pdf": "pdf", ".docx": "docx", ".pptx": "pptx", ".xlsx": "xlsx",
}  # fmt: skip
"""What is read, by the end of the name."""


def kind_of(name: str) -> str:
    """How a file is read, by its name.

    Raises:
        CauserieError: CAU-6115 for one that is not.
    """
    kind = KINDS.get(PurePath(name).suffix.lower())
    if kind is None:
        raise _unreadable(name, "files of this kind are not read", "send text, Markdown, PDF, DOCX, PPTX or XLSX")
    return kind


async def read_file(name: str, content: bytes, seconds: float = SECONDS) -> dict[str, Any]:
    """The text of a file: `{"name", "text", "cut"}`.

    Raises:
        CauserieError: CAU-6115 when it cannot be read, takes too long or is not what its name says.
    """
    kind = kind_of(name)
    command = (sys.executable, "-I", str(CONVERTER), kind, str(TEXT_LENGTH))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(content), seconds)
    except TimeoutError:
        raise _unreadable(name, f"it took over {seconds:g} seconds", "send a smaller file") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        answer = json.loads(out)
    except ValueError:
        raise _unreadable(name, "the reader gave up on it", "send another form of it, such as text") from None
    if "error" in answer:
        raise _unreadable(name, str(answer["error"]), "send another form of it, such as text")
    if not answer["text"].strip():
        raise _unreadable(name, "there is no text in it", "scanned pages must go through OCR first")
    return {"name": name, "text": answer["text"], "cut": answer["cut"]}


def _unreadable(name: str, cause: str, fix: str) -> CauserieError:
    return CauserieError("CAU-6115", f"{name[:80]!r} was not read: {cause}", where="file", fix=fix)
