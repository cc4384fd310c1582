"""Exporting feedback: our own form for moving it, and the rows that other trainers read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causerie.core import write_atomic
from causerie.feedback.config import FeedbackExportConfig
from causerie.feedback.copies import note_copy
from causerie.feedback.derive import derive
from causerie.feedback.open_webui import open_webui_rows
from causerie.feedback.standing import Records, load_records, standing
from causerie.feedback.trl import trl_rows
from causerie.store import Store, open_store


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote, and what it left out for which reason."""

    out: Path
    rows: int
    left_out: dict[str, int]


def export_feedback(config: FeedbackExportConfig, workspace: Path, store: Store | None = None) -> ExportResult:
    """Write the store's feedback to a JSONL file, whole or not at all.

    Form "causerie" holds every exposure (with consent, unless told otherwise) and its signals, withdrawn ones
    marked; the other forms hold what a training set would be made of, without a split: see `trl` and `open_webui`.
    """
    if store is None:
        with open_store(workspace) as opened:
            return export_feedback(config, workspace, opened)
    records = load_records(store, unjudged=config.form == "causerie")
    if config.form == "causerie":
        rows = list(_own_rows(records, config.include_without_consent))
        left_out = len(records.exposures) + len(records.signals) - len(rows)
        reasons = {"without_consent": left_out} if left_out else {}
    else:
        rows, reasons = _training_rows(config, standing(records))
    write_atomic(config.out, _text(config, rows))
    note_copy(workspace, config.out, config.form)
    return ExportResult(config.out, len(rows), reasons)


def _training_rows(config: FeedbackExportConfig, usable: Records) -> tuple[list[dict[str, Any]], dict[str, int]]:
    derived = derive(usable)
    ours = {"pairs": derived.pairs, "labels": derived.unpaired, "messages": derived.sft}
    if config.form in ours:
        return [_for_others(row, config.form) for row in ours[config.form]], dict(usable.left_out)
    if config.form == "open-webui":
        rows, more = open_webui_rows(usable)
    else:
        rows, more = trl_rows(config.form, config.style, usable, derived)
    return rows, dict(usable.left_out + more)


def _text(config: FeedbackExportConfig, rows: list[dict[str, Any]]) -> str:
    """JSON lines; for Open WebUI one JSON list, as it exports it."""
    if config.form == "open-webui":
        return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _own_rows(records: Records, include_without_consent: bool) -> Iterator[dict[str, Any]]:
    shown = {
        name: exposure for name, exposure in records.exposures.items() if exposure.consent or include_without_consent
    }
    for exposure in sorted(shown.values(), key=lambda exposure: (exposure.created, exposure.id)):
        yield {"causerie": "exposure", **exposure.row()}
    for signal in records.signals:
        if all(name in shown for name in (signal.exposure_id, *signal.others)):
            yield {"causerie": "signal", **signal.row()}


def _for_others(row: dict[str, Any], form: str) -> dict[str, Any]:
    """TRL wants completions as message lists when the prompt is one."""
    names = {"pairs": ("chosen", "rejected"), "labels": ("completion",)}.get(form, ())
    return {name: [{"role": "assistant", "content": value}] if name in names else value for name, value in row.items()}
