"""Filters: measures against values counted by hand, rules against texts that are plainly good or bad."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.data.config import DataBuildConfig
from causerie.data.filters import MEASURES, drop_policy_lines, failing, hash_ngrams, hash_words, measure, quality_rules
from causerie.data.filters import view as take
from causerie.data.filters.gopher_repetition import repeated_ngrams, top_ngram

RULES = quality_rules(DataBuildConfig())


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("one two three", "words", 3),
        ("ab cd, efgh", "mean_word_length", 8 / 3),
        ("# a b # c...", "symbol_ratio", 3 / 3),
        ("- a\n* b\nc\nd", "bullet_lines", 0.5),
        ("a...\nb…\nc", "ellipsis_lines", 2 / 3),
        ("abc 123 -- d4", "alphabetic_words", 0.5),
        ("The man and the sea", "stop_words", 2),
        ("le chat est dans la maison", "stop_words", 4),
        ("a\na\nb\na", "repeated_lines", 0.5),
        ("aa\n\nbb\n\naa", "repeated_paragraphs", 1 / 3),
        ("aaaa\nb\naaaa", "repeated_line_characters", 4 / 9),
        ("One. Two! Three? 1.5", "sentences", 3),
        ("{x}", "curly_brackets", 2 / 3),
        ("Lorem ipsum", "placeholder_text", 1),
        ("A line.\nanother\n« dit-il »", "terminal_lines", 2 / 3),
        ("short\n" + "x" * 40, "short_lines", 0.5),
        ("a b\nc d", "lines_per_word", 0.5),
    ],
)
def test_measures_by_hand(text: str, name: str, expected: float) -> None:
    assert MEASURES[name](take(text)) == pytest.approx(expected)


def test_ngrams_by_hand() -> None:
    seen = take("ab cd ef ab cd gh")
    assert top_ngram(seen, 2) == pytest.approx(8 / 12)
    assert top_ngram(seen, 3) == 0
    assert repeated_ngrams(seen, 2) == pytest.approx(4 / 12)  # the second "ab cd"
    assert repeated_ngrams(take("x " * 10), 5) == pytest.approx(9 / 10)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 6))
def test_ngram_hashes_are_equal_exactly_when_the_words_are(words: list[str], n: int) -> None:
    grams = hash_ngrams(hash_words(words), n)
    plain = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert len(grams) == len(plain)
    assert len(set(grams.tolist())) == len(set(plain))


@given(st.text(max_size=400))
def test_every_text_can_be_measured(text: str) -> None:
    values = measure(take(text))
    assert set(values) == set(MEASURES)
    assert all(value >= 0 for value in values.values())
    shares = ("bullet_lines", "alphabetic_words", "repeated_lines", "top_2gram", "repeated_5grams", "short_lines")
    assert all(values[name] <= 1 for name in shares)


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_prose_passes(make_prose, lang: str) -> None:
    assert failing(measure(take(make_prose(3, lang))), RULES) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Too short to keep.", "too_short"),
        ("buy " * 200, "few_stop_words"),
        ("the cat is on the mat and that is that. " * 30, "repeated_5grams"),
        ("\n".join(f"- the item {n} and of" for n in range(60)), "bullets"),
        ("\n".join(["The same line of words that comes with every page."] * 40), "repeated_lines"),
        ("if (x) { y } else { z } and the end of that " * 12, "code"),
        ("\n".join(f"the menu and number {n}" for n in range(50)), "no_sentences"),
        ("1 2 3 4 5 6 7 8 9 of the and to " * 9, "few_letters"),
    ],
)
def test_plainly_bad_text_fails(text: str, rule: str) -> None:
    assert rule in failing(measure(take(text)), RULES)


def test_banners_go_and_paragraphs_about_them_stay() -> None:
    essay = "A privacy policy says what a site does with what it learns about its readers. " * 6
    text = f"Real text.\nThis site uses cookies. Accept?\nPlease enable JavaScript to go on.\n{essay.strip()}"
    assert drop_policy_lines(text) == f"Real text.\n{essay.strip()}"
    assert drop_policy_lines("Du texte.\nNotre politique de confidentialité") == "Du texte."


def test_rules_have_names_of_their_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {rule.measure for rule in RULES} == set(MEASURES)
