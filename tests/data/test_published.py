"""Against values and programs that we did not write: registries of numbers, Python's own parsers, Gopher's and C4's words."""

from __future__ import annotations

import html
import ipaddress
import itertools
import json
import math
import random
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.data.addresses import host_of, listed, normal_url
from causerie.data.curate import Judged
from causerie.data.extract import extract_html, tidy_text
from causerie.data.filters import hash_ngrams, hash_words, words_of
from causerie.data.filters.words import view
from causerie.data.language import identify, known_languages
from causerie.data.ledger import COLUMNS, Counts, LedgerWriter, read_ledger
from causerie.data.pii import IBAN_LENGTHS, SAMPLE_IBAN, is_iban, is_nir, mask_personal

IBANS = [
    "AT611904300234573201",
    "BE68539007547034",
    "CH9300762011623852957",
    "CZ6508000000192000145399",
    "DE89370400440532013000",
    "DK5000400440116243",
    "EE382200221020145685",
    "ES9121000418450200051332",
    "FI2112345600000785",
    "FR1420041010050500013M02606",
    "GB29NWBK60161331926819",
    "GR1601101250000000012300695",
    "HR1210010051863000160",
    "HU42117730161111101800000000",
    "IE29AIBK93115212345678",
    "IL620108000000099999999",
    "IT60X0542811101000000123456",
    "LI21088100002324013AA",
    "LT121000011101001000",
    "LU280019400644750000",
    "LV80BANK0000435195001",
    "MC5811222000010123456789030",
    "MT84MALT011000012345MTLCAST001S",
    "NL91ABNA0417164300",
    "NO9386011117947",
    "PL61109010140000071219812874",
    "PT50000201231234567890154",
    "RO49AAAA1B31007593840000",
    "SE4550000000058398257466",
    "SI56263300012039086",
    "SK3112000000198742637541",
    "TR330006100519786457841326",
]
"""Examples of the IBAN registry (SWIFT, ISO 13616)."""


@pytest.mark.parametrize("number", IBANS)
def test_the_registrys_account_numbers_are_known_and_no_neighbour_of_theirs(number: str) -> None:
    assert is_iban(number)
    assert len(number) == IBAN_LENGTHS[number[:2]]
    grouped = " ".join(number[place : place + 4] for place in range(0, len(number), 4))
    for written in (number, grouped):
        masked = mask_personal(f"Pay to {written}, please.")
        assert (masked.text, masked.ibans) == (f"Pay to {SAMPLE_IBAN}, please.", 1)
    for place in range(2, len(number)):  # modulo 97 finds every wrong digit, and every two neighbours exchanged
        if number[place].isdigit():
            wrong = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
            assert not is_iban(wrong)
    for place in range(4, len(number) - 1):
        first, second = number[place : place + 2]
        if first != second and (first + second).isdigit():
            assert not is_iban(number[:place] + second + first + number[place + 2 :])


@given(sex=st.sampled_from("12"), year=st.integers(0, 99), month=st.integers(1, 12), rest=st.integers(0, 10**8 - 1))
@settings(deadline=None)
def test_a_register_number_has_one_key_of_97(sex: str, year: int, month: int, rest: int) -> None:
    """INSEE: the key is 97 less the remainder of the number by 97."""
    body = f"{sex}{year:02d}{month:02d}{rest:08d}"
    keys = [key for key in range(100) if is_nir(f"{body}{key:02d}")]
    assert keys == [97 - int(body) % 97]


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_public_addresses_are_those_that_python_says_are_global(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    masked = mask_personal(f"from {address} at noon")
    assert masked.addresses == int(address.is_global)
    assert (str(address) in masked.text) == (not address.is_global)


HOSTS = st.lists(st.text("abc09", min_size=1, max_size=6), min_size=2, max_size=3).map(".".join)
URLS = st.builds(
    lambda scheme, www, host, port, path, query, mark: f"{scheme}{www}{host}{port}/{path}{query}{mark}",
    st.sampled_from(["http://", "https://", "HTTPS://"]),
    st.sampled_from(["", "www."]),
    HOSTS,
    st.sampled_from(["", ":8080"]),
    st.text("ab0/._-", max_size=12),
    st.sampled_from(["", "?q=1"]),
    st.sampled_from(["", "#top"]),
)


@given(URLS)
@settings(deadline=None)
def test_an_address_is_compared_by_what_names_the_page(url: str) -> None:
    normal = normal_url(url)
    assert normal_url(normal) == normal
    assert normal_url(url.split("#")[0] + "#elsewhere") == normal
    assert host_of(url) == (urlsplit(url).hostname or "").removeprefix("www.")
    assert normal.startswith(host_of(url))
    assert ("?q=1" in normal) == ("?q=1" in url)


@given(st.text())
@settings(deadline=None)
def test_any_text_is_an_address_of_some_kind(text: str) -> None:
    assert normal_url(normal_url(text)) == normal_url(text) or "://" in text or "#" in text or "/" in text
    assert isinstance(host_of(text), str)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n  "])
@pytest.mark.parametrize("rows", [[], ["https://é.example/à"], ["a", "b c", "d#e"]])
def test_a_list_of_addresses_is_its_lines(tmp_path: Path, rows: list[str], end: str) -> None:
    (tmp_path / "urls.txt").write_bytes(("\ufeff" + "".join(row + end for row in rows)).encode())
    assert listed(tmp_path / "urls.txt") == rows


class Letters(HTMLParser):
    """The letters of a page as Python's own parser gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


@pytest.mark.parametrize("seed", range(6))
def test_an_article_keeps_every_word_that_pythons_parser_sees(seed: int) -> None:
    chance = random.Random(seed)
    paragraphs = [
        ["".join(chance.choices("abcdefghijklmnoprstuvéèàùœ'&<>", k=chance.randint(2, 9))) for _ in range(12)]
        for _ in range(chance.randint(3, 6))
    ]
    body = "".join(f"<p>{html.escape(' '.join(words))}.</p>" for words in paragraphs)
    page = f"<html lang=en><head><title>t</title></head><body><article><h1>Title</h1>{body}</article></body></html>"
    reference = Letters()
    reference.feed(body)
    expected = Counter(" ".join(reference.seen).replace(".", " ").split())
    found = Counter(extract_html(page.encode()).text.replace(".", " ").split())
    assert expected - found == Counter()


@given(st.text(max_size=200))
@settings(deadline=None)
def test_tidy_text_is_composed_and_has_no_signs_that_cannot_be_seen(text: str) -> None:
    tidy = tidy_text(text)
    assert tidy_text(tidy) == tidy
    assert unicodedata.is_normalized("NFC", tidy)
    assert not [
        sign for sign in tidy if unicodedata.category(sign) in ("Cc", "Cs") and sign < "\x7f" and sign not in "\n\t"
    ]


@given(st.lists(st.sampled_from("abcde"), max_size=30), st.integers(1, 6))
@settings(deadline=None)
def test_repeated_runs_are_counted_as_a_counter_does(words: list[str], n: int) -> None:
    hashes = hash_ngrams(hash_words(words), n)
    theirs = Counter(itertools.chain.from_iterable([tuple(words[i : i + n])] for i in range(len(words) - n + 1)))
    _, ours = np.unique(hashes, return_counts=True)
    assert sorted(ours.tolist()) == sorted(theirs.values())


@given(st.text(max_size=300))
@settings(deadline=None)
def test_words_are_found_where_unicode_says_letters_and_numbers_are(text: str) -> None:
    words = words_of(text)
    assert all(
        any(unicodedata.category(sign)[0] in "LNM" or not sign.isascii() or sign == "_" for sign in w) for w in words
    )
    assert bool(words) >= any(sign.isascii() and sign.isalpha() for sign in text)
    assert len(view(text).hashes) == len(view(text).words)


UDHR = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "
    "должны поступать в отношении друг друга в духе братства.",
}
"""Article 1 of the Universal Declaration of Human Rights (United Nations, free to reproduce)."""


@pytest.mark.parametrize("lang", UDHR)
def test_the_declaration_of_human_rights_is_in_its_language(lang: str) -> None:
    assert identify(UDHR[lang]).code == lang
    assert lang in known_languages()


@given(st.permutations(list(UDHR)), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_share_of_a_language_is_one_of_the_whole(order: list[str], count: int) -> None:
    found = identify("\n".join(UDHR[lang] for lang in order[:count]))
    assert found.code in order[:count]
    assert 1 / count * 0.5 < found.confidence <= 1


def judged(number: int, rule: str) -> Judged:
    row = Judged(f"f#{number}", "f", number, url=f"https://a.example/{number}", bytes_in=10 * number)
    row.text, row.lang, row.emails = "é" * number, "fr", number % 2
    if rule:
        row.drop(rule, "second")
    return row


@given(st.lists(st.sampled_from(["", "too_short", "language"]), min_size=1, max_size=30))
@settings(max_examples=25, deadline=None)
def test_the_ledger_is_parquet_and_adds_up(tmp_path_factory: pytest.TempPathFactory, rules: list[str]) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    counts = Counts()
    with LedgerWriter(folder / "ledger.parquet") as ledger:
        for number, rule in enumerate(rules):
            row = judged(number, rule)
            counts.add(row)
            ledger.add(row)
    table = pq.read_table(folder / "ledger.parquet")
    assert table.equals(read_ledger(folder))
    assert table.column_names == list(COLUMNS)
    assert table["kept"].to_pylist() == [not rule for rule in rules]
    assert [row[:1] for row in table["failed"].to_pylist()] == [[rule] if rule else [] for rule in rules]
    told = counts.metrics()
    assert told["documents_in"] == len(rules) == told["documents_kept"] + sum(told["dropped"].values())
    assert told["bytes_kept"] == sum(2 * number for number, rule in enumerate(rules) if not rule)
    assert told["masked"].get("emails", 0) == sum(number % 2 for number, rule in enumerate(rules) if not rule)
    assert json.loads(json.dumps(told)) == told
    assert not any(isinstance(value, float) and math.isnan(value) for value in told["masked"].values())


def test_the_list_of_addresses_says_where_it_is_bad(tmp_path: Path) -> None:
    from causerie.core import CauserieError

    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    for place in ("latin", "absent", "."):
        with pytest.raises(CauserieError) as caught:
            listed(tmp_path / place)
        assert (caught.value.code, caught.value.where) == ("CAU-2015", str(tmp_path / place))
