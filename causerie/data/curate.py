"""One document through everything that looks at it alone: extraction, masking, language, quality, contamination."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from causerie.core import CauserieError
from causerie.data.config import DataBuildConfig
from causerie.data.decontaminate import EvalRuns, overlap
from causerie.data.dedup import Signature, minhash, words_digest
from causerie.data.extract import VOICES, Extractor, decode_html, extract_html, tidy_text
from causerie.data.filters import STOP_LISTS, Rule, drop_policy_lines, failing, measure, quality_rules, view
from causerie.data.language import identify
from causerie.data.pii import mask_personal
from causerie.data.quality import load_quality
from causerie.data.raw import RawDocument

NO_VOICE_HELPS: Final = frozenset({"language", "contaminated"})
"""Rules for which no other extractor is asked: another reading of the page would not pass them either."""


@dataclass
class Judged:
    """A document after curation: its text, every measure, and the rule that drops it.

    Attributes:
        rule: "" while it is kept, else the first rule that it failed.
        failed: every rule that it failed, in order.
        values: every measure; empty when the document was never read.
        signature: MinHash signature in base64, "" for a dropped document.
        digest: hex digest of the words, that exact copies share, or "".
        cut_lines: lines cut because the whole site repeats them.
        duplicate_of, similarity: set when it repeats an earlier document.
    """

    id: str
    source: str
    index: int
    url: str = ""
    title: str = ""
    lang: str = ""
    lang_share: float = 0.0
    license: str = ""
    extractor: str = ""
    bytes_in: int = 0
    text: str = ""
    rule: str = ""
    failed: list[str] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    emails: int = 0
    phones: int = 0
    addresses: int = 0
    ibans: int = 0
    nirs: int = 0
    eval_overlap: int = 0
    cut_lines: int = 0
    signature: str = ""
    digest: str = ""
    duplicate_of: str = ""
    similarity: float = 0.0
    note: str = ""

    def drop(self, *rules: str) -> None:
        """Note failed rules; the first ever noted is the one that counts."""
        self.failed.extend(rules)
        self.rule = self.failed[0] if self.failed else ""

    def as_dict(self) -> dict[str, Any]:
        """The document as a JSON object; its lists are the document's own (a deep copy costs more than a filter)."""
        return dict(vars(self))


def unread(raw: RawDocument, rule: str = "", note: str = "") -> Judged:
    """A document that is dropped without being read."""
    row = Judged(raw.id, raw.source, raw.index, url=raw.url, title=raw.title, license=raw.license)
    row.bytes_in, row.note = len(raw.body), note or raw.note
    row.drop(rule or raw.problem)
    return row


def curate(raw: RawDocument, config: DataBuildConfig, runs: EvalRuns, rules: tuple[Rule, ...] = ()) -> Judged:
    """Judge one document; every rule is tried, so that the ledger shows what another threshold would do."""
    if raw.problem:
        return unread(raw)
    if len(raw.body) > config.max_page_bytes:
        return unread(raw, "too_large")
    first: Judged | None = None
    for voice in VOICES if config.extractor == "union" and raw.kind == "html" else (config.extractor,):
        row = Judged(raw.id, raw.source, raw.index, url=raw.url, title=raw.title, license=raw.license)
        row.bytes_in = len(raw.body)
        try:
            _read(row, raw, config, voice)
        except CauserieError as error:
            return unread(raw, "unreadable", error.cause)
        if row.text:
            judge(row, config, runs, rules or quality_rules(config))
        else:
            row.drop("empty")
        if not row.rule or row.rule in NO_VOICE_HELPS:
            return row
        first = first or row
    assert first is not None
    return first


def _read(row: Judged, raw: RawDocument, config: DataBuildConfig, voice: Extractor) -> None:
    if raw.kind == "html":
        found = extract_html(raw.body, raw.url or None, extractor=voice, charset=raw.charset or None)
        row.title, row.extractor, text = raw.title or found.title, found.extractor, found.text
    else:
        text = tidy_text(decode_html(raw.body, raw.charset or None))
    text = drop_policy_lines(text)
    if config.mask_personal:
        masked = mask_personal(text)
        text, row.emails, row.phones, row.addresses = masked.text, masked.emails, masked.phones, masked.addresses
        row.ibans, row.nirs = masked.ibans, masked.nirs
    row.text = text


def judge(row: Judged, config: DataBuildConfig, runs: EvalRuns, rules: tuple[Rule, ...]) -> None:
    """Measure a text and note every rule that it fails; done again when the text was changed."""
    row.rule, row.failed, row.signature, row.digest = "", [], "", ""
    language = identify(row.text)
    row.lang, row.lang_share = language.code, language.confidence
    if config.languages and language.code not in config.languages:
        row.drop("language")
    seen = view(row.text)
    before = row.values.get("quality", 1.0)
    row.values = measure(seen)
    row.values["quality"] = before
    if config.quality_model is not None:
        row.values["quality"] = round(load_quality(str(config.quality_model)).score(seen), 6)
    row.drop(*(rule for rule in failing(row.values, rules) if rule != "few_stop_words" or language.code in STOP_LISTS))
    if language.confidence < config.min_language_share:
        row.drop("mixed_language")
    if runs:
        row.eval_overlap = overlap(seen, runs)
        if row.eval_overlap:
            row.drop("contaminated")
    if not row.rule:
        row.digest = words_digest(seen.hashes).hex()
        row.signature = base64.b64encode(minhash(seen.hashes).astype("<u4").tobytes()).decode()


def signature_of(row: Judged) -> Signature:
    """The MinHash signature that `curate` stored."""
    return np.frombuffer(base64.b64decode(row.signature), "<u4").astype(np.uint32)
