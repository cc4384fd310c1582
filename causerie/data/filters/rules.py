"""The rules in the order they are applied: a name, a measure, the values that pass, and where the rule is from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from causerie.data.config import DataBuildConfig
from causerie.data.filters import c4, fineweb, gopher_quality, gopher_repetition, learned
from causerie.data.filters.words import View

GOPHER: Final = "Gopher (Rae et al. 2021)"
C4: Final = "C4 (Raffel et al. 2020)"
FINEWEB: Final = "FineWeb (Penedo et al. 2024)"
LEARNED: Final = "a classifier (DCLM, Li et al. 2024)"
TOP_NGRAMS: Final = (2, 3, 4)
REPEATED_NGRAMS: Final = (5, 6, 7, 8, 9, 10)

MEASURES: Final[Mapping[str, Callable[[View], float]]] = {
    "words": gopher_quality.word_count,
    "mean_word_length": gopher_quality.mean_word_length,
    "symbol_ratio": gopher_quality.symbol_ratio,
    "bullet_lines": gopher_quality.bullet_lines,
    "ellipsis_lines": gopher_quality.ellipsis_lines,
    "alphabetic_words": gopher_quality.alphabetic_words,
    "stop_words": gopher_quality.stop_words,
    "repeated_lines": gopher_repetition.repeated_lines,
    "repeated_paragraphs": gopher_repetition.repeated_paragraphs,
    "repeated_line_characters": gopher_repetition.repeated_line_characters,
    "repeated_paragraph_characters": gopher_repetition.repeated_paragraph_characters,
    **{f"top_{n}gram": partial(gopher_repetition.top_ngram, n=n) for n in TOP_NGRAMS},
    **{f"repeated_{n}grams": partial(gopher_repetition.repeated_ngrams, n=n) for n in REPEATED_NGRAMS},
    "sentences": c4.sentence_count,
    "curly_brackets": c4.curly_brackets,
    "placeholder_text": c4.placeholder_text,
    "terminal_lines": fineweb.terminal_lines,
    "short_lines": fineweb.short_lines,
    "lines_per_word": fineweb.lines_per_word,
    "quality": learned.unscored,
}
"""Every measure by its name in the ledger."""


@dataclass(frozen=True)
class Rule:
    """A document fails when its measure lies outside `minimum`..`maximum` (bounds pass)."""

    name: str
    measure: str
    minimum: float
    maximum: float
    source: str

    def fails(self, values: Mapping[str, float]) -> bool:
        """Whether a document with these measures fails."""
        return not self.minimum <= values[self.measure] <= self.maximum


def measure(seen: View) -> dict[str, float]:
    """Every measure of a text, rounded so that the ledger is equal on every machine."""
    return {name: round(float(function(seen)), 6) for name, function in MEASURES.items()}


def failing(values: Mapping[str, float], rules: tuple[Rule, ...]) -> list[str]:
    """Names of all rules that fail, in order; the first one is what a document is dropped for."""
    return [rule.name for rule in rules if rule.fails(values)]


def quality_rules(config: DataBuildConfig) -> tuple[Rule, ...]:
    """The quality rules with the thresholds of a configuration."""
    most, least = float("inf"), float("-inf")
    grams = zip(REPEATED_NGRAMS, config.max_repeated_ngrams, strict=True)
    tops = zip(TOP_NGRAMS, config.max_top_ngrams, strict=True)
    return (
        Rule("too_short", "words", config.min_words, most, GOPHER),
        Rule("too_long", "words", least, config.max_words, GOPHER),
        Rule("word_length", "mean_word_length", config.min_word_length, config.max_word_length, GOPHER),
        Rule("symbols", "symbol_ratio", least, config.max_symbol_ratio, GOPHER),
        Rule("bullets", "bullet_lines", least, config.max_bullet_lines, GOPHER),
        Rule("ellipses", "ellipsis_lines", least, config.max_ellipsis_lines, GOPHER),
        Rule("few_letters", "alphabetic_words", config.min_alphabetic_words, most, GOPHER),
        Rule("few_stop_words", "stop_words", config.min_stop_words, most, GOPHER),
        Rule("few_sentences", "sentences", config.min_sentences, most, C4),
        Rule("placeholder", "placeholder_text", least, 0, C4),
        Rule("code", "curly_brackets", least, config.max_curly_brackets, C4),
        Rule("no_sentences", "terminal_lines", config.min_terminal_lines, most, FINEWEB),
        Rule("short_lines", "short_lines", least, config.max_short_lines, FINEWEB),
        Rule("list", "lines_per_word", least, config.max_lines_per_word, FINEWEB),
        Rule("repeated_lines", "repeated_lines", least, config.max_repeated_lines, GOPHER),
        Rule("repeated_paragraphs", "repeated_paragraphs", least, config.max_repeated_lines, GOPHER),
        Rule("repeated_line_text", "repeated_line_characters", least, config.max_repeated_characters, GOPHER),
        Rule("repeated_paragraph_text", "repeated_paragraph_characters", least, config.max_repeated_characters, GOPHER),
        *(Rule(f"top_{n}gram", f"top_{n}gram", least, limit, GOPHER) for n, limit in tops),
        *(Rule(f"repeated_{n}grams", f"repeated_{n}grams", least, limit, GOPHER) for n, limit in grams),
        Rule("low_quality", "quality", config.min_quality, most, LEARNED),
    )
