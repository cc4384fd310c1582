"""The training set of a round: recorded votes become a preferences artifact that names every vote it used."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from causerie.core import (
    Artifact,
    CauserieError,
    artifact_key,
    code_digest,
    existing_artifact,
    place_for,
    sha256_json,
    write_artifact,
    write_jsonl,
)
from causerie.feedback.config import TrainingSetConfig
from causerie.feedback.copies import note_copy
from causerie.feedback.derive import Derived, derive, split
from causerie.feedback.excluded import read_excluded
from causerie.feedback.standing import READ_PER_VOTE, load_records, standing
from causerie.store import Store, open_store

FILES: Final = ("pairs", "unpaired", "sft")
"""Row files of the artifact (`pairs.jsonl` …); the held-out ones have the same names after `heldout-`."""


def training_set(config: TrainingSetConfig, workspace: Path, store: Store | None = None) -> Artifact:
    """Make the preferences artifact from the votes in the workspace's store.

    The same votes and configuration give the same artifact, byte for byte; `manifest.config["signals"]` lists the
    ids of the signals used, `manifest.metrics` counts rows, users and everything left out.

    Args:
        config: see `TrainingSetConfig`.
        workspace: the workspace.
        store: an open store to read; the workspace's own when not given.

    Raises:
        CauserieError: CAU-1306 when no signal can be used, CAU-1307 for a bad do-not-train list, CAU-1308.
    """
    config.check()
    if store is None:
        with open_store(workspace) as opened:
            return training_set(config, workspace, opened)
    records = standing(
        load_records(store, most_per_user=READ_PER_VOTE * config.max_per_user),
        excluded=read_excluded(config.do_not_train, config.apart),
        max_per_user=config.max_per_user,
        max_imported=config.max_imported,
        sources=config.sources,
    )
    derived = derive(records, regenerate_weight=config.regenerate_weight)
    used = derived.signal_ids()
    if not used:
        raise _nothing(dict(records.left_out + derived.counts), len(records.signals))
    counted = set(used)
    people = {signal.user for signal in records.signals if signal.id in counted}
    train, held_out = split(derived, config.held_out)
    metrics = _metrics(train, held_out, people=len(people), used=len(used), left_out=dict(records.left_out))
    return _write(config, workspace, train, held_out, used, metrics)


def _write(
    config: TrainingSetConfig,
    workspace: Path,
    train: Derived,
    held_out: Derived,
    used: list[str],
    metrics: dict[str, Any],
) -> Artifact:
    places = ("out", "name", "do_not_train", "apart")
    settings = {name: value for name, value in asdict(config).items() if name not in places}
    settings = {**settings, "sources": sorted(config.sources)}
    sides = (("", train), ("heldout-", held_out))
    inputs = {"rows": sha256_json([[getattr(side, name) for name in FILES] for _, side in sides])}
    key = artifact_key("preferences", settings, inputs, code_digest("causerie.feedback"))
    if config.out is not None:
        note_copy(workspace, config.out, "preferences")
    there = existing_artifact(config.out, workspace, "preferences", config.name, key)
    if there is not None:
        return there
    place, exact = place_for(config.out, workspace)
    recorded = {**settings, "signals": used}
    with write_artifact(place, "preferences", config.name, key, inputs=inputs, config=recorded, exact=exact) as draft:
        for prefix, side in sides:
            for name in FILES:
                write_jsonl(draft.path / f"{prefix}{name}.jsonl", getattr(side, name))
        draft.metrics.update(metrics)
        draft.notices.extend(_notices(train, held_out))
    assert draft.artifact is not None
    return draft.artifact


def _metrics(train: Derived, held_out: Derived, **more: Any) -> dict[str, Any]:
    counts = {name: len(getattr(train, name)) for name in FILES}
    counts |= {f"heldout_{name}": len(getattr(held_out, name)) for name in FILES}
    return {**counts, "signals": more.pop("used"), **more, "counts": dict(sorted(train.counts.items()))}


def _notices(*sides: Derived) -> list[str]:
    """Where the rows come from and under which licence: passed on to what is trained on them."""
    rows = [row for side in sides for name in FILES for row in getattr(side, name) if row.get("license")]
    return sorted({f"feedback from {row['source']}: {row['license']}" for row in rows})


def _nothing(counts: dict[str, int], standing_signals: int) -> CauserieError:
    told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing was recorded"
    return CauserieError(
        "CAU-1306",
        f"no usable feedback ({standing_signals} standing signals; {told})",
        where="the store",
        fix="vote on the page with consent given, or run `causerie feedback import FILE`",
    )
