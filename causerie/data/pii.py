"""Personal data in text, masked: e-mail addresses, telephone numbers, public IP addresses.

Each is replaced by an address or number that is reserved for examples, so that the text still reads naturally:
RFC 2606 (example.com), RFC 5737 and RFC 3849 (documentation networks), 555-01xx and the French 01 99 00 xx xx.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

EMAIL: Final = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
IPV4: Final = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)")
IPV6: Final = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}(?:[0-9A-Fa-f]{1,4}|:[0-9A-Fa-f]{0,4})(?![\w:])")
FRENCH_PHONE: Final = re.compile(r"(?<![\d.])(?:\+33[ .]?(?:\(0\)[ .]?)?|0)[1-9](?:[ .-]?\d{2}){4}(?![\d])")
PHONE: Final = re.compile(r"(?<![\w.])(?:\+?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?![\w-])")
FOREIGN_PHONE: Final = re.compile(r"(?<![\w.])\+[2-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}\d(?![\w])")

SAMPLE_EMAIL: Final = "email@example.com"
SAMPLE_IPV4: Final = "192.0.2.1"
SAMPLE_IPV6: Final = "2001:db8::1"
SAMPLE_FRENCH_PHONE: Final = "01 99 00 12 34"
SAMPLE_PHONE: Final = "202-555-0123"


@dataclass(frozen=True)
class Masked:
    """A text with its personal data replaced, and how many of each kind there were."""

    text: str
    emails: int
    phones: int
    addresses: int


def mask_personal(text: str) -> Masked:
    """Replace e-mail addresses, telephone numbers and public IP addresses; masking twice changes nothing."""
    text, emails = _replace(EMAIL, text, lambda found: None if "@example." in found else SAMPLE_EMAIL)
    text, four = _replace(IPV4, text, lambda found: SAMPLE_IPV4 if _is_public(found) else None)
    text, six = _replace(IPV6, text, lambda found: SAMPLE_IPV6 if _is_public(found) else None)
    text, french = _replace(FRENCH_PHONE, text, lambda f: None if f == SAMPLE_FRENCH_PHONE else _phone(f, True))
    text, american = _replace(PHONE, text, lambda found: None if found == SAMPLE_PHONE else _phone(found, False))
    text, foreign = _replace(FOREIGN_PHONE, text, lambda found: _phone(found, False))
    return Masked(text, emails, french + american + foreign, four + six)


def _replace(pattern: re.Pattern[str], text: str, choose: object) -> tuple[str, int]:
    count = 0

    def swap(match: re.Match[str]) -> str:
        nonlocal count
        assert callable(choose)
        new = choose(match.group())
        count += new is not None
        return match.group() if new is None else str(new)

    return pattern.sub(swap, text), count


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
