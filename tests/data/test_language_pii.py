"""Language shares of mixed pages, and what is masked as personal and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causerie.data.language import identify
from causerie.data.pii import mask_personal


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_plain_language(make_prose, lang: str) -> None:
    found = identify(make_prose(5, lang, 10))
    assert found.code == lang
    assert found.confidence > 0.9


def test_half_translated_page_has_half_the_share(make_prose) -> None:
    found = identify(make_prose(1, "en", 10) + "\n" + make_prose(1, "fr", 9))
    assert 0.4 < found.confidence < 0.65


@pytest.mark.parametrize("text", ["", "\n\n", "1234 5678", "— … —"])
def test_text_without_letters_has_no_language(text: str) -> None:
    assert identify(text).code == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jean.dupont+x@mail.example.fr.", "write to email@example.com."),
        ("host 8.8.8.8 and 192.168.1.10", "host 192.0.2.1 and 192.168.1.10"),
        ("version 1.2.3.4.5 stays", "version 1.2.3.4.5 stays"),
        ("2001:4860:4860:0:0:0:0:8888 is public", "2001:db8::1 is public"),
        ("Tél. 06 12 34 56 78", "Tél. 01 99 00 12 34"),
        ("+33 6 12 34 56 78", "01 99 00 12 34"),
        ("call (415) 555-2671 now", "call 202-555-0123 now"),
        ("0612345678 without separators", "0612345678 without separators"),
        ("in 2020-2021, pages 100-200", "in 2020-2021, pages 100-200"),
        ("user@localhost", "user@localhost"),
    ],
)
def test_masking(text: str, expected: str) -> None:
    assert mask_personal(text).text == expected


@given(st.text(alphabet="ab1029.@+-( )é:\n", max_size=80))
def test_masking_twice_changes_nothing(text: str) -> None:
    once = mask_personal(text)
    assert mask_personal(once.text).text == once.text


def test_counts() -> None:
    found = mask_personal("a@b.fr, c@d.fr, 8.8.8.8, 01.23.45.67.89")
    assert (found.emails, found.addresses, found.phones) == (2, 1, 1)
