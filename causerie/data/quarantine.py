"""Documents that ended the process which read them, kept as they came, so that somebody can look at them."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Final

from causerie.core import sha256_file, write_atomic
from causerie.data.raw import RawDocument

MOST_BYTES: Final = 100_000_000
"""Bytes kept in a quarantine folder; of documents beyond it only the line in the list is written."""
LIST: Final = "list.jsonl"


class Quarantine:
    """A folder with the bytes of such documents and `list.jsonl`: which document, which rule, which file.

    Several threads may add to it.
    """

    def __init__(self, folder: Path, most: int = MOST_BYTES) -> None:
        self.folder, self._most = folder, most
        self._lock = threading.Lock()

    def add(self, raw: RawDocument, rule: str, note: str) -> None:
        """Keep a document; one that is here already (its batch was read again) is not kept twice."""
        name = f"{re.sub(r'[^A-Za-z0-9.-]+', '_', raw.source)[-80:]}-{raw.index}.{raw.kind}"
        with self._lock:
            listed = self.listed()
            if any(entry["id"] == raw.id for entry in listed):
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            held = sum(file.stat().st_size for file in self.folder.iterdir() if file.name != LIST)
            fits = held + len(raw.body) <= self._most
            entry = {"id": raw.id, "url": raw.url, "rule": rule, "note": note, "bytes": len(raw.body)}
            if fits:
                write_atomic(self.folder / name, raw.body)
                entry["sha256"] = sha256_file(self.folder / name)
            listed.append({**entry, "file": name if fits else ""})
            lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in listed)
            write_atomic(self.folder / LIST, lines.encode("utf-8", "replace"))

    def listed(self) -> list[dict[str, object]]:
        """Entries of the list, in the order in which they came."""
        path = self.folder / LIST
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
