"""Each of IFEval's 25 instruction types with answers that follow it and answers that do not."""

from __future__ import annotations

from typing import Any

import pytest

from causerie.core import CauserieError
from causerie.evals.ifeval_checks import CHECKS, follows, follows_loosely
from causerie.evals.ifeval_checks.counting import sentences, words

Case = tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]

HINDI = "भारत एक विशाल देश है और यहाँ कई भाषाएँ बोली जाती हैं।"
CASES: list[Case] = [
    ("keywords:existence", {"keywords": ["Sea", "boat"]}, ("The boat is at SEA.",), ("The boat is ashore.",)),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": "at least"},
        ("War and war.", "war, war, war"),
        ("One war.",),
    ),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "less than"}, ("One war.",), ("War. War.",)),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "roll"]},
        ("A rocket rolled away.",),
        ("Rock on.", "Let it ROLL!"),
    ),
    (
        "keywords:letter_frequency",
        {"letter": "t", "let_frequency": 2, "let_relation": "less than"},
        ("One table",),
        ("Two tables",),
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 4, "let_relation": "at least"},
        ("## a ##",),
        ("### a",),
    ),
    ("language:response_language", {"language": "hi"}, (HINDI,), ("India is a vast country.", "123")),
    (
        "language:response_language",
        {"language": "de"},
        ("Das Wetter ist heute schön und wir gehen im Park spazieren.",),
        ("Le temps est beau et nous allons au parc.",),
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ("One. Two! Three?", "1. First point\n2. Second point"),
        ("Mr. Smith paid 3.50 dollars. He left.", "- first point\n- second point\n- third point"),
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        ("J. R. R. Tolkien wrote it, e.g. in Oxford. It is long.",),
        ("One. Two. Three.",),
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ("a\n***\nb", "***\na\n***\nb\n***"),
        ("a", "a\n\nb"),
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, ("a *** b *** c",), ("a *** *** c",)),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        ("one two three four",),
        ("one two three",),
    ),
    ("length_constraints:number_words", {"num_words": 4, "relation": "less than"}, ("one two",), ("a b c d",)),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"},
        ("Hi.\n\nWeekend, at last.", 'Hi.\n\n"Weekend" it is.'),
        ("Hi.\n\nThe weekend.", "Weekend.", "Hi.\n\nWeekend.\n\nMore."),
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ("Dear [name], at [address]",),
        ("Dear [name]", "No brackets"),
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ("Bye.\nP.S. Call me.", "Bye.\nP. S. Call"),
        ("Bye.\nPS call me",),
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ("Bye.\nP.P.S. Call me.",),
        ("Bye.\nP.S. Call me.",),
    ),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, ("n.b. this",), ("note this",)),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ("* a\n* b", "- a\ntext\n  - b"),
        ("* a", "* a\n* b\n* c", "**a**\n**b**"),
    ),
    ("detectable_format:constrained_response", {}, ("My answer is yes.", "Well. My answer is maybe."), ("Yes.",)),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ("*one* and **two**", "*one* *two*"),
        ("*one*", "** ** and *  *", "*one\ntwo*"),
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ("SECTION 1\na\nSECTION 2\nb",),
        ("SECTION 1\na", "SECTION A\nSECTION B"),
    ),
    ("detectable_format:json_format", {}, ('{"a": [1]}', '```json\n{"a": 1}\n```'), ("{a: 1}", "a", "[" * 100_000)),
    ("detectable_format:title", {}, ("<<A day out>>\nIt rained.",), ("<A day out>", "<< >>")),
    (
        "combination:two_responses",
        {},
        ("one ****** two", "******\none\n******\ntwo"),
        ("one", "one ****** one", "a ****** b ****** c", "a ****** ****** b"),
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say hello."},
        ("say HELLO. Hello!",),
        ("Hello! Say hello.",),
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Anything else?"},
        ("No. Anything else?", '"No. anything else?"  '),
        ("Anything else? No.",),
    ),
    ("startend:quotation", {}, ('"Hello."', ' "Hello."\n'), ("Hello.", '"', '"Hello" he said.')),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ("STOP the CAR", "I say A-OK"),
        ("Stop the CAR",),
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ("Stop the CAR",),
        ("STOP THE CAR",),
    ),
    (
        "change_case:english_capital",
        {},
        ("THIS IS A SHORT STORY ABOUT THE SEA.",),
        ("This is a short story.", "CECI EST UNE HISTOIRE DE LA MER ET DU VENT."),
    ),
    (
        "change_case:english_lowercase",
        {},
        ("this is a short story about the sea.",),
        ("This is a short story.", "ceci est une histoire de la mer et du vent."),
    ),
    ("punctuation:no_comma", {}, ("No commas here.",), ("One, two.",)),
]


@pytest.mark.parametrize(("instruction", "arguments", "good", "bad"), CASES)
def test_check_tells_followed_from_not_followed(
    instruction: str, arguments: dict[str, Any], good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    for answer in good:
        assert follows(instruction, arguments, answer), answer
    for answer in bad:
        assert not follows(instruction, arguments, answer), answer


def test_all_twenty_five_types_have_cases() -> None:
    assert len(CHECKS) == 25
    assert {case[0] for case in CASES} == set(CHECKS)


@pytest.mark.parametrize("instruction", sorted(CHECKS))
def test_an_empty_answer_follows_nothing(instruction: str) -> None:
    arguments = next(case[1] for case in CASES if case[0] == instruction)
    assert not follows(instruction, arguments, "  \n ")


def test_null_arguments_count_as_absent() -> None:
    assert follows("punctuation:no_comma", {"num_words": None}, "fine")


def test_unknown_types_and_arguments_are_errors() -> None:
    for instruction, arguments in (("keywords:nothing", {}), ("punctuation:no_comma", {"x": 1})):
        with pytest.raises(CauserieError) as caught:
            follows(instruction, arguments, "text")
        assert caught.value.code == "CAU-4206"
    with pytest.raises(CauserieError):
        follows("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "about"}, "a")


def test_loose_reading_forgives_a_preface_a_closing_line_and_emphasis() -> None:
    answer = "Sure, here it is:\n**no comma here**\nGlad to help, as ever."
    assert not follows("punctuation:no_comma", {}, answer)
    assert follows_loosely("punctuation:no_comma", {}, answer)
    assert not follows_loosely("punctuation:no_comma", {}, "First, a.\nThen, b.\nLast, c.")
    assert follows_loosely("startend:quotation", {}, 'Here:\n"Hello."')
    assert follows_loosely("startend:end_checker", {"end_phrase": "the end"}, "It is **the end**")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("No mark at the end", 1),
        ("Dr. Who left at 5 p.m. yesterday. He came back.", 2),
        ("Wait... what? Yes!", 3),
        ('He said "Stop." Then he left.', 2),
        ("See fig. 3 for details. It costs 3.14 euros.", 2),
        ("1. First step\n2. Second step", 3),
        ("Title\n\nA paragraph. Another one.", 2),
        ("A list:\n* one\n* two\n\nThat is all.", 1),
        ("Mr. Smith met J. K. Rowling at 3 p.m. They spoke. Then he left!", 3),
        ("これは文です。もう一つの文です。", 2),
        (HINDI + " " + HINDI, 2),
        ("...", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    """Lists, titles and English abbreviations as the authors' program (nltk's Punkt, English model) counts them."""
    assert len(sentences(text)) == count


def test_words_follow_the_papers_definition() -> None:
    assert words("It's a well-known fact_1: été!") == ["It", "s", "a", "well", "known", "fact_1", "été"]
