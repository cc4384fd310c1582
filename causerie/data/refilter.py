"""`data refilter`: another corpus from the same pages with other thresholds, without reading the pages again.

The ledger has every measure of every document and the corpus keeps the text of what was dropped, so the rules are
applied anew, then duplicates and repeated lines are found among what passes. Hours of extraction become a minute.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from causerie.core import (
    Artifact,
    artifact_key,
    code_digest,
    existing_artifact,
    open_artifact,
    open_run,
    place_for,
    say,
    write_artifact,
)
from causerie.data.config import DataBuildConfig
from causerie.data.config_json import TUPLES, config_from_json
from causerie.data.corpus import corpus_documents, json_lines
from causerie.data.curate import Judged
from causerie.data.errors import data_error
from causerie.data.filters import MEASURES, STOP_LISTS, failing, quality_rules
from causerie.data.limits import check_values
from causerie.data.merge import Merge
from causerie.data.report import write_report

FIXED: Final = frozenset(
    {
        *("sources", "out", "name", "sample", "extractor", "page_seconds", "max_page_bytes", "mask_personal"),
        *("decontaminate", "decontaminate_ngram", "workers", "batch_documents", "engine", "tasks"),
        *("after", "weights", "without", "quality_model", "page_memory_mb"),
    }
)
"""Settings that a corpus keeps: to change them the pages must be read again."""
MOVABLE: Final = tuple(item.name for item in fields(DataBuildConfig) if item.name not in FIXED)
JUDGED_AGAIN: Final = frozenset({"language", "mixed_language", "exact_duplicate", "near_duplicate"})


@dataclass(frozen=True)
class RefilterConfig:
    """Apply other thresholds to a corpus that was built."""

    corpus: Path
    """Corpus folder, made by `data build`."""
    settings: tuple[str, ...] = ()
    """What changes, as NAME=VALUE: min_words=30 languages=en,fr max_short_lines=0.8."""
    out: Path | None = None
    """Folder for the new corpus; by default it goes to the workspace."""
    name: str = "corpus"
    """Name of the new corpus in the workspace."""


def refilter(config: RefilterConfig, workspace: Path) -> Artifact:
    """Build a corpus from another one's ledger and texts.

    Raises:
        CauserieError: CAU-2003 for settings, CAU-2011 for a corpus without the dropped texts, CAU-2005 when nothing
            is kept.
    """
    old = open_artifact(config.corpus, kind="corpus")
    recorded = {name: value for name, value in old.manifest.config.items() if name in MOVABLE}
    before = config_from_json({**recorded, "keep_dropped": True})
    settings = replace(before, **_settings(config.settings, before))
    if not old.manifest.config.get("keep_dropped", False):
        fix = "build it again with --keep-dropped"
        raise data_error("CAU-2011", "the texts that were dropped are not kept", where=str(old.path), fix=fix)
    check_values(settings)
    plain = {name: getattr(settings, name) for name in MOVABLE}
    inputs = {"corpus": old.key}
    key = artifact_key("corpus", plain, inputs, code_digest("causerie.data"))
    made = existing_artifact(config.out, workspace, "corpus", config.name, key, inputs)
    if made is not None:
        return made
    with open_run(workspace, "corpus", config.name, key, plain) as run:
        scratch = run.path / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        known = np.load(old.file("boilerplate.npy"), allow_pickle=False)
        parts, mixture = _parts(old)
        merge = Merge(lambda: _rows(old.path, settings), settings, parts, None, scratch, known)
        place, exact = place_for(config.out, workspace)
        with write_artifact(place, "corpus", config.name, key, inputs=inputs, config=plain, exact=exact) as draft:
            draft.metrics.update(merge.write(draft.path) | mixture)
            shutil.copyfile(old.file("contamination.jsonl"), draft.path / "contamination.jsonl")
            write_report(draft.path)
        shutil.rmtree(scratch, ignore_errors=True)
        run.result = draft.metrics
    assert draft.artifact is not None
    was, now = old.manifest.metrics["documents_kept"], draft.metrics["documents_kept"]
    say(f"kept {now:,} of {draft.metrics['documents_in']:,} documents where {was:,} were kept before")
    return draft.artifact


def _settings(given: tuple[str, ...], before: DataBuildConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in given:
        name, sign, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if name in found:
            raise data_error("CAU-2003", f"{name} is set twice", where="settings", fix="give it once")
        if not sign or name not in MOVABLE:
            known = ", ".join(MOVABLE)
            cause = f"{item!r} is no setting that can be moved" if sign else f"{item!r} is not NAME=VALUE"
            raise data_error("CAU-2003", cause, where="settings", fix=f"give one of {known}")
        found[name] = _value(name, text.strip(), getattr(before, name))
    return found


def _value(name: str, text: str, like: Any) -> Any:
    """A value of the same type as the present one."""
    try:
        if name == "languages":
            return tuple(word.strip() for word in text.split(",") if word.strip())
        if name in TUPLES:
            return tuple(float(word) for word in text.split(","))
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(like)(text)
    except (ValueError, KeyError) as error:
        cause = f"{name}={text} is no {type(like).__name__}"
        raise data_error("CAU-2003", cause, where="settings", fix=f"it was {like} before") from error


def _parts(old: Artifact) -> tuple[dict[str, int], dict[str, Any]]:
    mixture = old.manifest.metrics.get("mixture")
    if not mixture:
        return {}, {}
    return {row["source"]: row.get("part", 0) for row in corpus_documents(old.path)}, {"mixture": mixture}


def _rows(corpus: Path, config: DataBuildConfig) -> Iterator[Judged]:
    """Every document of the ledger with the rules applied anew, its text from wherever it is kept."""
    import pyarrow.parquet as pq

    rules = quality_rules(config)
    kept, dropped = corpus_documents(corpus), json_lines(corpus / "dropped.jsonl.zst")
    for batch in pq.ParquetFile(corpus / "ledger.parquet").iter_batches(batch_size=512):
        for fact in batch.to_pylist():
            row = _row(fact)
            if fact["bytes"]:
                row.text = next(kept if fact["kept"] else dropped)["text"]
                _judge(row, config, rules)
            yield row


def _row(fact: dict[str, Any]) -> Judged:
    names = {item.name for item in fields(Judged)} - {"text", "values", "signature", "digest", "failed", "rule"}
    row = Judged(**{name: fact[name] for name in names if name in fact and fact[name] is not None})
    row.values = {name: fact[name] for name in MEASURES if fact.get(name) is not None}
    row.failed = list(fact["failed"] or ())
    row.rule = fact["rule"] or ""
    row.duplicate_of, row.similarity = "", 0.0
    return row


def _judge(row: Judged, config: DataBuildConfig, rules: tuple[Any, ...]) -> None:
    """The verdict again, as `curate.judge` gives it, from the measures alone."""
    moved = JUDGED_AGAIN | {rule.name for rule in rules}
    others = [name for name in row.failed if name not in moved]
    row.rule, row.failed = "", []
    if config.languages and row.lang not in config.languages:
        row.drop("language")
    if row.values:
        row.drop(*(name for name in failing(row.values, rules) if name != "few_stop_words" or row.lang in STOP_LISTS))
    if row.lang_share < config.min_language_share:
        row.drop("mixed_language")
    row.drop(*others)
