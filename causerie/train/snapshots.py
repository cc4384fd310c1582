"""Snapshots: models from on the way, kept beside the result as artifacts that can be used like it.

`<run>/snapshots/step-00000100/` is a whole model or adapter folder. A checkpoint is another thing: what a run needs to
go on with, deleted at its end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from causerie.core import artifact_key, read_manifest, write_artifact
from causerie.model import Transformer
from causerie.train.artifacts import save_trained, trained_kind
from causerie.train.objective import Callback

FOLDER: Final = "snapshots"
EVENT: Final = "snapshot"
"""Event of the run: a model was kept after `step` updates; `folder` (relative to the run) says where."""


def keep_snapshots(count: int, steps: int | None, run: Path, source: Path, key: str, workspace: Path) -> list[Callback]:
    """What keeps `count` models on the way, evenly spaced, the result itself not among them; [] for none.

    Args:
        count: models to keep, at most.
        steps: updates of the whole run; None (a run limited by time) keeps none.
        run: the run's folder.
        source: the model or adapter folder that training began with; tokenizer and notices come from it.
        key: of the result.
        workspace: see `save_trained`.
    """
    if not count or steps is None:
        return []

    def keep(model: Transformer, step: int) -> dict[str, Any]:
        if not 0 < step < steps:
            return {}
        folder = run / FOLDER / f"step-{step:08d}"
        if not (folder / "manifest.json").is_file():
            kind = trained_kind(model)
            of = artifact_key(kind, {"step": step}, {"result": key})
            with write_artifact(folder, kind, run.name, of, inputs={"result": key}, exact=True) as draft:
                save_trained(model, draft, folder, source, workspace)
                if (source / "manifest.json").is_file():
                    draft.notices.extend(read_manifest(source).notices)
        return {"folder": folder.relative_to(run).as_posix()}

    return [Callback(keep, EVENT, math.ceil(steps / (count + 1)))]
