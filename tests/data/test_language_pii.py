"""Language shares of mixed pages, and what is masked as personal and what is not."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from causerie.data.language import identify
from causerie.data.pii import is_iban, is_nir, mask_personal


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
        ("IBAN : FR14 2004 1010 0505 0001 3M02 606 BIC X", "IBAN : FR76 3000 6000 0112 3456 7890 189 BIC X"),
        ("GB29NWBK60161331926819.", "FR76 3000 6000 0112 3456 7890 189."),
        ("wrong check digits: GB28NWBK60161331926819", "wrong check digits: GB28NWBK60161331926819"),
        ("too short for its country: DE8937040044053201300", "too short for its country: DE8937040044053201300"),
        ("NIR 2 55 08 14 168 025 38", "NIR 2 69 05 49 588 157 80"),
        ("255081416802538", "2 69 05 49 588 157 80"),
        ("wrong key 2 55 08 14 168 025 39", "wrong key 2 55 08 14 168 025 39"),
        ("no such month 2 55 13 14 168 025 33", "no such month 2 55 13 14 168 025 33"),
    ],
)
def test_masking(text: str, expected: str) -> None:
    assert mask_personal(text).text == expected


@example("++2000")
@given(st.text(alphabet="ab1029.@+-( )é:\n", max_size=80))
def test_masking_twice_changes_nothing(text: str) -> None:
    once = mask_personal(text)
    assert mask_personal(once.text).text == once.text


@pytest.mark.parametrize(
    "number",
    [  # examples of the SWIFT IBAN registry
        "AD12 0001 2030 2003 5910 0100",
        "BE68 5390 0754 7034",
        "CH93 0076 2011 6238 5295 7",
        "DE89 3704 0044 0532 0130 00",
        "ES91 2100 0418 4502 0005 1332",
        "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        "NO93 8601 1117 947",
    ],
)
def test_account_numbers_of_the_registry_are_known(number: str) -> None:
    assert is_iban(number)
    assert is_iban(number.replace(" ", ""))
    assert not is_iban(number[:-1] + ("1" if number[-1] != "1" else "2"))
    assert mask_personal(f"a {number} b").ibans == 1


def test_corsican_register_numbers() -> None:
    for department, stands_for in (("2A", 19), ("2B", 18)):
        key = 97 - int(f"18506{stands_for}012345") % 97
        assert is_nir(f"1 85 06 {department} 012 345 {key:02}")
        assert not is_nir(f"1 85 06 {department} 012 345 {key % 97 + 1:02}")


def test_counts() -> None:
    found = mask_personal("a@b.fr, c@d.fr, 8.8.8.8, 01.23.45.67.89")
    assert (found.emails, found.addresses, found.phones) == (2, 1, 1)
