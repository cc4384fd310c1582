"""Configuration of `causerie eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUITES: Final = (
    "bits_per_byte", "answer_loss", "preference", "votes", "ending", "sycophancy", "over_refusal", "ifeval", "choice",
    "last_word",
)  # fmt: skip
"""Every suite, in the order in which they run and are shown; each is one file of this room."""


@dataclass(frozen=True)
class EvalConfig:
    """What to measure, on which data; see `evaluate`."""

    model: Path
    """Model or adapter folder to evaluate."""
    suites: tuple[str, ...] = ()
    """Suites to run: bits_per_byte, answer_loss, preference, votes, ending, sycophancy, over_refusal, ifeval, choice,
    last_word; none given: every suite whose data is given."""
    against: Path | None = None
    """Second model or adapter folder: the differences model − against are reported, paired item by item."""
    documents: Path | None = None
    """bits_per_byte: documents, a corpus folder, or a JSONL file (.zst allowed) with "text"."""
    chats: tuple[Path, ...] = ()
    """answer_loss: JSONL files of chat rows {"messages": [...]}."""
    pairs: Path | None = None
    """preference: a preferences folder (its held-out pairs) or a JSONL file of pairs. votes: the same folder (its
    held-out thumbs)."""
    reference: Path | None = None
    """preference: model folder whose log-probabilities are subtracted, which gives DPO's implicit margin."""
    prompts: Path | None = None
    """ending: JSONL of {"prompt": "..."} or chat rows (the last user turn is answered)."""
    sycophancy: Path | None = None
    """sycophancy: JSONL of {"question", "right", "wrong"}; when the suite is named and this is not given, the
    package's own."""
    refusals: Path | None = None
    """over_refusal: JSONL of {"prompt"} or XSTest's CSV; when the suite is named and this is not given, the
    package's own (XSTest's safe prompts and some French ones)."""
    ifeval: Path | None = None
    """ifeval: JSONL in IFEval's format; when the suite is named and this is not given, the data pack's file."""
    choices: tuple[Path, ...] = ()
    """choice: JSONL files {"question", "choices", "answer"} or the known sets' parquet files; when the suite is named
    and this is not given, the data pack's files."""
    last_words: Path | None = None
    """last_word: JSONL of {"text"} or {"context", "continuation"} (LAMBADA); when the suite is named and this is not
    given, the data pack's file."""
    limit: int = 0
    """At most this many items per suite and file, evenly spread over the file; 0 means all."""
    limits: dict[str, int] | None = None
    """The same for single suites, by their names; others follow `limit`."""
    max_length: int = 1024
    """Longest sequence scored, in tokens; longer prompts lose their beginning, longer documents are cut in windows."""
    max_tokens: int = 256
    """Longest answer generated, in tokens (ending, ifeval)."""
    temperature: float = 0.0
    """Sampling temperature of generated answers; 0 is greedy."""
    batch_tokens: int = 4096
    """Tokens (with padding) scored at once."""
    seed: int = 0
    """Seed of sampling and of the bootstrap."""
    confidence: float = 0.95
    """Confidence level of every interval."""
    name: str = "evaluation"
    """Name of the artifact."""
    out: Path | None = None
    """Write the artifact exactly here instead of in the workspace."""

    def limit_of(self, suite: str) -> int:
        """At most so many items of a suite's file; 0 means all."""
        return (self.limits or {}).get(suite, self.limit)
