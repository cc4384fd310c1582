"""Personal data in text, masked: e-mail, telephone, public IP addresses, bank accounts (IBAN), French NIR.

Each is replaced by an address or number that is reserved for examples, so that the text still reads naturally:
RFC 2606 (example.com), RFC 5737 and RFC 3849 (documentation networks), 555-01xx, the French 01 99 00 xx xx, the
account printed in the banks' own guides and the number on the specimen of the French health card.
Account and NIR numbers are masked only when their check digits are right, so that other long numbers stay.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from operator import add
from typing import Final

EMAIL: Final = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
IPV4: Final = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)")
IPV6: Final = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}(?:[0-9A-Fa-f]{1,4}|:[0-9A-Fa-f]{0,4})(?![\w:])")
FRENCH_PHONE: Final = re.compile(r"(?<![\d.])(?:\+33[ .]?(?:\(0\)[ .]?)?|0)[1-9](?:[ .-]?\d{2}){4}(?![\d])")
PHONE: Final = re.compile(r"(?<![\w.])(?:\+?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?![\w-])")
FOREIGN_PHONE: Final = re.compile(r"(?<![\w.+])\++[2-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}\d(?![\w])")

IBAN: Final = re.compile(r"(?<![\w])[A-Z]{2}\d{2}(?:[ \u00a0]?[A-Z0-9]){11,30}(?![a-z])")
NIR: Final = re.compile(
    r"(?<![\d.,-])[1-478][ .]?\d{2}[ .]?\d{2}[ .]?(?:\d{2}|2[AB])[ .]?\d{3}[ .]?\d{3}[ .|/-]{0,3}\d{2}(?![\d.,-]*\d)"
)
"""Sex, year, month, department, commune, order and key of the French register of persons (INSEE)."""

SIGNS: Final = {
    EMAIL: re.compile("@"),
    IPV4: re.compile(r"\.\d{1,3}\.\d"),
    IPV6: re.compile(r":[0-9A-Fa-f]{1,4}:"),
    FRENCH_PHONE: re.compile(r"\+33|0[1-9](?:[ .-]?\d{2}){4}"),
    PHONE: re.compile(r"\d[.-]\d{4}"),
    FOREIGN_PHONE: re.compile(r"\+[2-9]"),
    IBAN: re.compile(r"[A-Z]{2}\d{2}"),
    NIR: re.compile(r"\d{3}[ .|/-]{0,3}\d{2}"),
}
"""What stands in every text that the pattern matches and is found faster."""

IBAN_COUNTRIES: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL",
    24: "AD CZ ES MD PK RO SA SE SK TN",
    25: "PT",
    26: "IS TR",
    27: "FR GR IT MC MR SM",
    28: "AL AZ CY DO GT HU LB PL",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT",
}
IBAN_LENGTHS: Final = {code: length for length, codes in IBAN_COUNTRIES.items() for code in codes.split()}
"""Characters of an account number by country (SWIFT, IBAN registry)."""

SAMPLE_IBAN: Final = "FR76 3000 6000 0112 3456 7890 189"
SAMPLE_NIR: Final = "2 69 05 49 588 157 80"
SAMPLE_EMAIL: Final = "email@example.com"
SAMPLE_IPV4: Final = "192.0.2.1"
SAMPLE_IPV6: Final = "2001:db8::1"
SAMPLE_FRENCH_PHONE: Final = "01 99 00 12 34"
SAMPLE_PHONE: Final = "202-555-0123"
MOST_LOOKS: Final = 20
"""Looks at a text, at most. Of 12,000 random strings of figures and signs one needed four (the last finds nothing)."""


@dataclass(frozen=True)
class Masked:
    """A text with its personal data replaced, and how many of each kind there were."""

    text: str
    emails: int
    phones: int
    addresses: int
    ibans: int = 0
    nirs: int = 0


def mask_personal(text: str) -> Masked:
    """Replace personal data of every kind; masking twice changes nothing: what stands beside a replaced number may make
    another one with it, so that a text is looked at until it stays as it is."""
    whole = Masked(text, 0, 0, 0)
    for _ in range(MOST_LOOKS):
        once = _masked(whole.text)
        if once.text == whole.text:
            break
        counts = (once.emails, once.phones, once.addresses, once.ibans, once.nirs)
        known = (whole.emails, whole.phones, whole.addresses, whole.ibans, whole.nirs)
        whole = Masked(once.text, *map(add, known, counts))
    return whole


def _masked(text: str) -> Masked:
    """A text looked at once."""
    text, ibans = _replace(IBAN, text, _iban)
    text, nirs = _replace(NIR, text, lambda found: SAMPLE_NIR if found != SAMPLE_NIR and is_nir(found) else None)
    text, emails = _replace(EMAIL, text, lambda found: None if "@example." in found else SAMPLE_EMAIL)
    text, four = _replace(IPV4, text, lambda found: SAMPLE_IPV4 if _is_public(found) else None)
    text, six = _replace(IPV6, text, lambda found: SAMPLE_IPV6 if _is_public(found) else None)
    text, french = _replace(FRENCH_PHONE, text, lambda f: None if f == SAMPLE_FRENCH_PHONE else _phone(f, True))
    text, american = _replace(PHONE, text, lambda found: None if found == SAMPLE_PHONE else _phone(found, False))
    text, foreign = _replace(FOREIGN_PHONE, text, lambda found: _phone(found, False))
    return Masked(text, emails, french + american + foreign, four + six, ibans, nirs)


def is_iban(number: str) -> bool:
    """Whether an account number has the length of its country and the right check digits (ISO 13616, modulo 97)."""
    plain = re.sub(r"\s", "", number)
    if len(plain) != IBAN_LENGTHS.get(plain[:2]):
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def is_nir(number: str) -> bool:
    """Whether a French register number has a possible month and the right key: 97 less its remainder by 97.

    Corsican departments count as 19 (2A) and 18 (2B).
    """
    plain = re.sub(r"[^0-9AB]", "", number).replace("2A", "19").replace("2B", "18")
    if len(plain) != 15 or not plain.isdigit():
        return False
    month = int(plain[3:5])
    possible = 1 <= month <= 12 or 20 <= month <= 42 or month >= 50  # not known: other codes are in use
    return possible and 97 - int(plain[:13]) % 97 == int(plain[13:])


def _iban(found: str) -> str | None:
    """The text with its account number replaced: capitals that follow it in a line are no part of it."""
    length, signs = IBAN_LENGTHS.get(found[:2], 0), 0
    for place, sign in enumerate(found):
        signs += not sign.isspace()
        if signs == length:
            number, rest = found[: place + 1], found[place + 1 :]
            if number == SAMPLE_IBAN or not is_iban(number) or rest[:1].isalnum():
                return None
            return SAMPLE_IBAN + rest
    return None


def _replace(pattern: re.Pattern[str], text: str, choose: object) -> tuple[str, int]:
    count = 0

    def swap(match: re.Match[str]) -> str:
        nonlocal count
        assert callable(choose)
        new = choose(match.group())
        count += new is not None
        return match.group() if new is None else str(new)

    return (pattern.sub(swap, text) if SIGNS[pattern].search(text) else text), count


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _phone(found: str, french: bool) -> str | None:
    """The replacement, unless the digits are something else: a French number written without any separator is rare
    enough beside identifiers and amounts that it must have separators or a country code."""
    separated = any(mark in found for mark in " .-(") or found.startswith("+")
    if not separated:
        return None
    return SAMPLE_FRENCH_PHONE if french else SAMPLE_PHONE
