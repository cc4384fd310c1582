"""Reports of data: which corpora stand behind a run, and their pages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from causerie.chat.errors import not_found
from causerie.core import CauserieError, Manifest, read_manifest

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""A report is one file with its styles inside, and nothing in it may run or load."""


def report_of(workspace: Path, corpus: str) -> Path:
    """The report of a corpus, by its folder's name.

    Raises:
        CauserieError: CAU-6102 when there is none.
    """
    path = workspace / "corpus" / corpus / "report.html"
    if Path(corpus).name != corpus or not path.is_file():
        raise not_found("report", corpus)
    return path


def reports_behind(workspace: Path, run_id: str, config: Any) -> list[dict[str, Any]]:
    """The corpora with a report that a run made, or read through artifacts of this workspace.

    Args:
        workspace: whose artifacts are looked at.
        run_id: its artifact has the same eight digits.
        config: of a run that made no artifact yet: what it names is what it reads.

    Returns:
        `{"corpus", "name", "documents_in", "documents_kept"}` each.
    """
    known = dict(_manifests(workspace))
    key8 = run_id.rpartition("-")[2]
    named = json.dumps(config if isinstance(config, Mapping) else {})
    start = [folder for folder, one in known.items() if one.key[:8] == key8 or f'/{folder.name}"' in named]
    by_key = {one.key: folder for folder, one in known.items()}
    seen: set[Path] = set()
    while start:
        folder = start.pop()
        if folder not in seen:
            seen.add(folder)
            start += [by_key[key] for key in known[folder].inputs.values() if key in by_key]
    corpora = sorted(folder for folder in seen if (folder / "report.html").is_file())
    return [_shown(folder, known[folder]) for folder in corpora]


def _shown(folder: Path, manifest: Manifest) -> dict[str, Any]:
    counts = {name: manifest.metrics.get(name) for name in ("documents_in", "documents_kept")}
    return {"corpus": folder.name, "name": manifest.name, **counts}


def _manifests(workspace: Path) -> Iterator[tuple[Path, Manifest]]:
    for path in sorted(workspace.glob("*/*/manifest.json")):
        try:
            yield path.parent, read_manifest(path.parent)
        except (CauserieError, OSError):
            continue
