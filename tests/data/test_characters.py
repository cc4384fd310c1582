"""Characters that nobody sees: taken out or replaced as browsers do, and nothing else is touched."""

from __future__ import annotations

import html
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.data import DataBuildConfig, build, corpus_documents, extract_html
from causerie.data.characters import clean_characters
from causerie.data.extract import tidy_text
from causerie.data.filters import words_of

ODD = st.characters(categories=("Cc", "Cf", "Zl", "Zp", "Cs", "Cn", "Mn", "Zs"))
MIXED = st.lists(st.one_of(ODD, st.characters(), st.sampled_from("aé ’\n\r\t")), max_size=60).map("".join)


@pytest.mark.parametrize("code", range(0x80, 0xA0))
def test_c1_characters_become_what_browsers_show(code: int) -> None:
    """The HTML standard's table of numeric character references, as Python's own `html` has it."""
    shown = html.unescape(f"&#{code};")
    expected = "" if shown == chr(code) else shown
    assert clean_characters(f"a{chr(code)}b") == f"a{expected}b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hy\xadphen\xadated", "hyphenated"),
        ("zero\u200bwidth\ufeff mark", "zerowidth mark"),
        ("one\u2028two\u2029three", "one\ntwo\nthree"),
        ("access \u202elevel\u202c and \u2066isolate\u2069", "access level and isolate"),
        ("left\u200e right\u200f arabic\u061c", "left right arabic"),
        ("hidden" + "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all") + " words", "hidden words"),
        ("non\ufdd0char\U0002fffeacters\U0010ffff", "noncharacters"),
        ("annot\ufff9ation\ufffa\ufffb", "annotation"),
        ("old \x00bell\x07 and DEL\x7f", "old bell and DEL"),
        ("half \ud83d pair", "half ? pair"),
        ("cafe\u0301", "café"),
    ],
)
def test_what_goes_and_what_it_leaves(text: str, expected: str) -> None:
    assert clean_characters(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # Persian needs the non-joiner,
        "क्\u200dष",  # Devanagari the joiner,
        "👩\u200d👩\u200d👧 \u2764\ufe0f",  # and so do families
        "10\u00a0% l’été — « oui » … naïve \u2009thin",
        "\ttab and\nline",
        "\ue000 private use, an icon font’s",
    ],
)
def test_what_means_something_stays(text: str) -> None:
    assert clean_characters(text) == text


@given(MIXED)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    for clean in (clean_characters, tidy_text):
        once = clean(text)
        assert clean(once) == once
        assert unicodedata.is_normalized("NFC", once)


@given(MIXED)
def test_nothing_invisible_is_left_and_every_letter_stays(text: str) -> None:
    clean = tidy_text(text)
    left = {unicodedata.category(sign) for sign in clean} - {"Cn"}
    assert not {"Zl", "Zp", "Cs"} & left
    assert all(sign in "\n\t" for sign in clean if unicodedata.category(sign) == "Cc")
    letters = [sign for sign in unicodedata.normalize("NFC", text) if sign.isalpha()]
    assert len([sign for sign in clean if sign.isalpha()]) >= len(letters) - text.count("\xad")


@given(st.text(alphabet="ab é\n", max_size=80), st.integers(0, 3))
def test_a_soft_hyphen_does_not_change_the_words(text: str, seed: int) -> None:
    hyphened = "".join(
        sign + ("\xad" if (place + seed) % 3 == 0 and sign.isalpha() else "") for place, sign in enumerate(text)
    )
    assert words_of(tidy_text(hyphened)) == words_of(tidy_text(text))


def test_titles_are_cleaned_too(make_prose) -> None:
    page = f"<title>It\x92s\u202e here\xad</title><article><p>{make_prose(1)} \x93Yes\x94, they said.</p></article>"
    found = extract_html(page)
    assert found.title == "It’s here"
    assert found.text.endswith("“Yes”, they said.")


def test_the_same_page_with_and_without_them_is_one_document(tmp_path: Path, make_prose) -> None:
    plain = make_prose(3)
    dressed = plain.replace(" the ", " \u200ethe\u200b ").replace("river", "ri\xadver").replace(".", ".\U000e0041")
    lines = [json.dumps({"text": text}) for text in (dressed, plain)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    made = build(DataBuildConfig((str(tmp_path / "in.jsonl"),), workers=1, min_words=20), tmp_path / "w")
    assert made.manifest.metrics["dropped"] == {"exact_duplicate": 1}
    (document,) = corpus_documents(made.path)
    assert document["text"] == plain
