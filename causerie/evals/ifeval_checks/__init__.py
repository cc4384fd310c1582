"""The 25 verifiable instruction types of IFEval (Zhou et al. 2023, arXiv:2311.07911), in our own code.

Each check is a function `(answer, **arguments) -> bool` that says whether the answer follows the instruction; the
arguments are those of the published data file. Sentences are split by our own rules and the language is told by
py3langid instead of nltk and langdetect, so sentence counts (equal on 96 % of 1,500 answers, verdicts on 99.7 %) and
language verdicts can differ from the authors' program; all other checks follow the paper's definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from causerie.core import CauserieError
from causerie.evals.ifeval_checks import case, combination, content, detectable_format, keywords, length, startend
from causerie.evals.ifeval_checks.language import response_language

CHECKS: Final[Mapping[str, Callable[..., bool]]] = {
    "keywords:existence": keywords.existence,
    "keywords:frequency": keywords.frequency,
    "keywords:forbidden_words": keywords.forbidden_words,
    "keywords:letter_frequency": keywords.letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": length.number_sentences,
    "length_constraints:number_paragraphs": length.number_paragraphs,
    "length_constraints:number_words": length.number_words,
    "length_constraints:nth_paragraph_first_word": length.nth_paragraph_first_word,
    "detectable_content:number_placeholders": content.number_placeholders,
    "detectable_content:postscript": content.postscript,
    "detectable_format:number_bullet_lists": detectable_format.number_bullet_lists,
    "detectable_format:constrained_response": detectable_format.constrained_response,
    "detectable_format:number_highlighted_sections": detectable_format.number_highlighted_sections,
    "detectable_format:multiple_sections": detectable_format.multiple_sections,
    "detectable_format:json_format": detectable_format.json_format,
    "detectable_format:title": detectable_format.title,
    "combination:two_responses": combination.two_responses,
    "combination:repeat_prompt": combination.repeat_prompt,
    "startend:end_checker": startend.end_checker,
    "startend:quotation": startend.quotation,
    "change_case:capital_word_frequency": case.capital_word_frequency,
    "change_case:english_capital": case.english_capital,
    "change_case:english_lowercase": case.english_lowercase,
    "punctuation:no_comma": content.no_comma,
}
"""Instruction id in the data file → its check."""


def follows(instruction: str, arguments: Mapping[str, Any], answer: str) -> bool:
    """Whether the answer follows one instruction, taken literally; an empty answer follows none.

    Args:
        instruction: id such as "keywords:existence".
        arguments: the row's `kwargs` for it; null values count as absent.

    Raises:
        CauserieError: CAU-4206 for an unknown id or arguments its check does not take.
    """
    if instruction not in CHECKS:
        raise CauserieError("CAU-4206", f"unknown instruction {instruction!r}", fix="use one of IFEval's 25 types")
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return bool(answer.strip()) and CHECKS[instruction](answer, **given)
    except TypeError as error:
        raise CauserieError("CAU-4206", f"wrong arguments: {error}", where=instruction, fix="mend the row") from error


def follows_loosely(instruction: str, arguments: Mapping[str, Any], answer: str) -> bool:
    """Whether any of the paper's eight relaxed readings of the answer follows the instruction.

    The readings drop the first line (often "Sure, here it is:"), the last line, or both, each with and without
    asterisks of Markdown emphasis.
    """
    lines = answer.split("\n")
    cuts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    readings = [*cuts, *(cut.replace("*", "") for cut in cuts)]
    return any(follows(instruction, arguments, reading) for reading in readings)
