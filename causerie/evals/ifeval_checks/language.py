"""The answer's language, told by py3langid among the languages that the instructions name and their neighbours."""

from __future__ import annotations

from typing import Final

_WORDS: Final = """
    ar bg bn ca cs da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro
    ru sk sl so sq sv sw ta te th tl tr uk ur vi zh
"""
LANGUAGES: Final = frozenset(_WORDS.split())
"""Languages told apart: those of IFEval and the other large ones; small neighbours only add errors on short answers."""


def language_of(text: str) -> str:
    """ISO 639-1 code of the likeliest language; letters' case plays no part. Text without letters gives ""."""
    if not any(character.isalpha() for character in text):
        return ""
    import py3langid

    ranked = py3langid.rank(text.lower())
    return next(str(code) for code, _ in ranked if code in LANGUAGES)


def response_language(answer: str, *, language: str) -> bool:
    """The whole answer is in the language (ISO 639-1 code)."""
    return language_of(answer) == language
