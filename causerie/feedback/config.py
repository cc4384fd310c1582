"""Configurations of the feedback commands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from causerie.core import CauserieError

JUDGED: Final = 0.25
"""Share of the votes that a round keeps to judge its candidate by, unless told otherwise."""


@dataclass(frozen=True)
class FeedbackImportConfig:
    """What `causerie feedback import` reads."""

    sources: tuple[Path, ...]
    """Files: .jsonl, .json (a list) or either with .gz. Every row's form is recognised by its fields."""

    source: str = ""
    """Name of where the rows come from, recorded with each; the file's name when empty."""

    licence: str = "unknown"
    """Licence of the rows, recorded with each."""

    lang: str = ""
    """Language code of the rows, when they do not say it themselves."""

    limit: int = 0
    """Most rows taken from each file; 0 takes all."""

    def check(self) -> None:
        """Refuse settings that cannot be.

        Raises:
            CauserieError: CAU-1308 naming the field.
        """
        _in_range(self, "limit")


@dataclass(frozen=True)
class FeedbackExportConfig:
    """What `causerie feedback export` writes."""

    out: Path
    """The JSONL file to write."""

    form: Literal[
        "causerie", "pairs", "labels", "messages",
        "language-modeling", "prompt-only", "prompt-completion", "preference", "implicit-preference",
        "unpaired-preference", "stepwise", "open-webui",
    ] = "causerie"  # fmt: skip
    """causerie: every record, to be imported again; pairs, labels, messages: training rows with weights and signal
    ids; the dataset types of TRL by their names; open-webui: its feedback JSON."""

    style: Literal["conversational", "standard"] = "conversational"
    """TRL's types as message lists or as plain texts; conversations that plain texts cannot hold are counted."""

    include_without_consent: bool = False
    """Also write answers whose user did not agree to training (form "causerie" only)."""


@dataclass(frozen=True)
class TrainingSetConfig:
    """How votes become a preferences artifact."""

    name: str = "preferences"
    """Name of the artifact."""

    out: Path | None = None
    """Folder to write it to; in the workspace when not given."""

    held_out: float = 0.1
    """Share of conversations (by the digest of their first message) kept for judging, never trained on."""

    max_per_user: int = 200
    """Most signals of one user that count, the newest ones; 0 means no cap. Imported rows are not capped by this."""

    max_imported: int = 0
    """Most imported rows, chosen by digest; 0 takes all."""

    sources: tuple[str, ...] = ()
    """Only answers from these sources ("page", or an import's name); all when empty."""

    do_not_train: Path | None = None
    """List of what is never trained on, one entry a line: user:ID, conversation:ID, answer:ID, source:NAME, or
    text:WORDS (prompts and answers that hold these words); # begins a comment."""

    apart: tuple[Path, ...] = ()
    """JSONL files of conversations or prompts kept for judging (guards, benchmarks): votes on the same questions are
    left out."""

    regenerate_weight: float = 0.5
    """Weight of a kept-against-discarded pair: throwing an answer away says less than choosing."""

    def check(self) -> None:
        """Refuse settings that cannot be.

        Raises:
            CauserieError: CAU-1308 naming the field.
        """
        _in_range(self, "max_per_user", "max_imported", "regenerate_weight")
        _in_range(self, "held_out", most=1.0)


def _in_range(config: object, *fields: str, most: float = 1e12) -> None:
    for field in fields:
        value = getattr(config, field)
        if not (math.isfinite(value) and 0 <= value <= most):
            fix = f"give a number from 0 to {most:g}"
            raise CauserieError("CAU-1308", f"{field} is {value!r}", where=field, fix=fix)
