"""Configuration of `causerie eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from causerie.core import CauserieError

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

    def check(self) -> None:
        """Refuse numbers that cannot be, before a model is loaded.

        Raises:
            CauserieError: CAU-4210 naming the field.
        """
        for field, (least, most) in _RANGES.items():
            value = getattr(self, field)
            if not least <= value <= most:
                fix = f"give a number from {least:g} to {most:g}"
                raise CauserieError("CAU-4210", f"{field} is {value!r}", where=field, fix=fix)
        if not 0 < self.confidence < 1:
            cause, fix = f"confidence is {self.confidence!r}", "give a number between 0 and 1, such as 0.95"
            raise CauserieError("CAU-4210", cause, where="confidence", fix=fix)

    def limit_of(self, suite: str) -> int:
        """At most so many items of a suite's file; 0 means all."""
        return (self.limits or {}).get(suite, self.limit)


_RANGES: Final[dict[str, tuple[float, float]]] = {
    "limit": (0, 1e12),
    "max_length": (2, 1e9),
    "max_tokens": (1, 1e9),
    "batch_tokens": (1, 1e9),
    "temperature": (0, 100),
    "seed": (0, 2**63 - 1),
}
"""Field of `EvalConfig` → its least and largest value."""
