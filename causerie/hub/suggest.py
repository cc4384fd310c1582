"""What a user may have meant by a model name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select

from causerie.core import CauserieError, list_artifacts
from causerie.store import Store, versions


def unknown_model(store: Store | None, ref: str, workspace: Path | None = None) -> CauserieError:
    """CAU-5001 for a name that nothing has, with what the user may have meant."""
    names, numbered, promoted = _known(store)
    folders = (
        [str(item.path) for kind in ("model", "adapter") for item in list_artifacts(workspace, kind)]
        if workspace
        else []
    )
    own = [name for name in numbered if name.startswith(f"{ref}@")]
    if ref in names and ref not in promoted:
        cause, fix = f"no version of {ref!r} is promoted", f"name a version ({', '.join(own[-3:])}) or promote one"
    else:
        near = _near(ref, [*names, *numbered], folders)
        cause = f"no model {ref!r}"
        fix = f"did you mean {' or '.join(near)}?" if near else "run `causerie models list` to see what there is"
    return CauserieError("CAU-5001", cause, where="MODEL", fix=fix)


def _known(store: Store | None) -> tuple[set[str], list[str], set[str]]:
    rows = store.read(select(versions.c.name, versions.c.number, versions.c.status)) if store else []
    numbered = [f"{row.name}@{row.number}" for row in sorted(rows, key=lambda row: (row.name, row.number))]
    return {row.name for row in rows}, numbered, {row.name for row in rows if row.status == "promoted"}


def _near(ref: str, names: Iterable[str], folders: Iterable[str]) -> list[str]:
    by_last = {Path(folder).name: folder for folder in folders}
    near = difflib.get_close_matches(ref, list(names), n=3, cutoff=0.6)
    last = Path(ref).name
    near += [by_last[name] for name in difflib.get_close_matches(last, list(by_last), n=2, cutoff=0.6)]
    near += [folder for name, folder in by_last.items() if name.rpartition("-")[0] == last and folder not in near]
    return near[:3]
