"""The two message files: the same keys, the same placeholders, nothing left untranslated, every used key there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from causerie import chat, feedback, hub, loop, serve, store
from causerie.infer.errors import ERRORS as INFER

SOURCES = Path(__file__).parents[2] / "page" / "src"
ENTRY = re.compile(r"^  '([a-z_.]+)':\s+'((?:[^'\\]|\\.)*)',$", re.MULTILINE)
USED = re.compile(r"\b(?:t|has)\(\s*[`']([a-z_.]+)(\$\{)?")
SAME_IN_BOTH = {"app.name", "list.label", "app.menu", "chat.messages", "versions.title", "versions.status.candidate"}

pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="the page's sources are not beside this package")


def messages(language: str) -> dict[str, str]:
    return dict(ENTRY.findall((SOURCES / "messages" / f"{language}.ts").read_text(encoding="utf-8")))


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    english, french = messages("en"), messages("fr")
    assert len(english) > 150
    assert list(english) == list(french)
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", french[key])), key
        assert text.strip(), key
        assert french[key].strip(), key
        letters = re.sub(r"\{\w+\}|[^\w]", "", text)
        assert text != french[key] or key in SAME_IN_BOTH or len(letters) < 10, f"{key} is not translated"


def test_every_error_of_the_page_is_said_in_french() -> None:
    told = re.findall(
        r"^  '(CAU-\d{4})': '(.+)',$", (SOURCES / "messages" / "fr-errors.ts").read_text("utf-8"), re.MULTILINE
    )
    rooms = (chat, feedback, hub, loop, serve, store)
    known = set(INFER).union(*(room.ERRORS for room in rooms))
    assert {code for code, _ in told} <= known
    assert chat.ERRORS.keys() | loop.ERRORS.keys() | hub.ERRORS.keys() <= dict(told).keys()
    assert len(told) == len(dict(told))
    for code, text in told:
        assert text.endswith("."), code
        assert "'" not in text, f"{code}: a straight apostrophe"


def test_every_key_that_the_page_uses_is_there_and_every_key_is_used() -> None:
    english = messages("en")
    used: set[str] = set()
    prefixes: set[str] = set()
    for path in [
        *SOURCES.rglob("*.svelte"),
        *SOURCES.rglob("*.svelte.ts"),
        *(SOURCES / "teach").glob("*.ts"),
        *(SOURCES / "lib").glob("*.ts"),
    ]:
        text = path.read_text(encoding="utf-8")
        for key, rest in USED.findall(text):
            (prefixes if rest else used).add(key)
        used.update(key for key in re.findall(r"'([a-z_]+(?:\.[a-z_]+)+)'", text) if key in english)
    plain = {re.sub(r"_(one|other)$", "", key) for key in english}
    assert used <= plain, used - plain
    unused = {key for key in plain - used if not key.startswith(tuple(prefixes))}
    assert unused == set()
