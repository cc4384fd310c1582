"""Characters that nobody sees or that nobody meant: taken out of texts, or replaced by what was meant.

C1 control characters come from windows-1252 read as ISO 8859-1; they become what browsers show for them (the table of
numeric character references in the HTML standard). Marks that only steer the direction or the breaking of lines, tag
characters (in which text can be hidden from readers) and noncharacters go; joiners stay, for Persian, Indic scripts
and emoji need them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_C1: Final = {code: bytes([code]).decode("windows-1252", "ignore") or None for code in range(0x80, 0xA0)}
_BREAKS: Final = dict.fromkeys((0x2028, 0x2029), "\n")
_GONE: Final = (
    *((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x7F)),  # C0 and DEL
    *((0xAD, 0xAD), (0x200B, 0x200B), (0x2060, 0x2064), (0xFEFF, 0xFEFF)),  # soft hyphen, zero width, byte order mark
    *((0x61C, 0x61C), (0x200E, 0x200F), (0x202A, 0x202E), (0x2066, 0x206F)),  # direction
    *((0xFFF9, 0xFFFB), (0xE0000, 0xE007F), (0xFDD0, 0xFDEF)),  # annotations, tags, noncharacters
    *((plane + 0xFFFE, plane + 0xFFFF) for plane in range(0, 0x110000, 0x10000)),
)
"""First and last code point of what is taken out."""
_TABLE: Final = {
    **dict.fromkeys(code for first, last in _GONE for code in range(first, last + 1)),
    **_C1,
    **_BREAKS,
}
_ANY: Final = re.compile(f"[{''.join(map(chr, sorted(_TABLE)))}]")


_ANY_C1: Final = re.compile("[\x80-\x9f]")


def mend_c1(text: str) -> str:
    """The text with C1 control characters as browsers show them: before a reader throws them away unseen."""
    return text.translate(_C1) if _ANY_C1.search(text) else text


def clean_characters(text: str) -> str:
    """The text in normal form C without such characters; done twice it changes nothing more."""
    text = text.encode("utf-8", "replace").decode()
    if _ANY.search(text):
        text = text.translate(_TABLE)
    return unicodedata.normalize("NFC", text)
