"""One HTML page → its main text. Several readers know the same craft; the cheapest one that suffices is taken.

Trafilatura reads best and slowest, and most of its time goes to the parts of a page that it then throws away. So the
page is parsed once, the element that holds its prose is looked for (`maintext`), and trafilatura reads that element
alone. Where that cannot be trusted (no such element, or less text comes out than was counted) it reads the whole page,
and where even that loses most of the text, resiliparse does.
"""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from causerie.data.characters import clean_characters, mend_c1
from causerie.data.htmltree import (
    Page,
    break_code_lines,
    drop_chrome,
    fold_space,
    free_labels,
    parse_page,
    wrap_loose_text,
)
from causerie.data.maintext import MIN_MASS, drop_beside, find_main_part

Extractor = Literal["auto", "union", "trafilatura", "resiliparse", "justext"]

SHARE_OF_FAST: Final = 0.35
"""Trafilatura's text must hold this share of resiliparse's, or resiliparse's is taken."""
SHARE_OF_PROSE: Final = 0.97
"""A reading of one element counts when it is as long as this share of the prose that was counted there."""
LARGE_PAGE: Final = 2_000_000
"""Characters of HTML above which only the fast extractor reads the page."""
VOICES: Final[tuple[Extractor, ...]] = ("auto", "resiliparse", "justext")
"""Who is asked, in this order, for the union: the first whose text passes every filter is taken.

Source: "different extractors keep different pages", arXiv 2602.19548."""
STOP_LISTS: Final = {"en": "English", "fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "nl": "Dutch"}


@dataclass(frozen=True)
class Extracted:
    """The main text of a page.

    Attributes:
        title: the page's `<title>`, whitespace folded; "" when it has none.
        text: paragraphs separated by newlines; "" when nothing readable was found.
        lang: language that the page declares (`<html lang>`), lower case two letters, or "".
        extractor: who read it: "focus" (trafilatura, the main element), "trafilatura" (the whole page),
            "resiliparse" or "justext".
    """

    title: str
    text: str
    lang: str
    extractor: str


def decode_html(html: bytes, charset: str | None = None) -> str:
    """Bytes → text: UTF-8 if they are, else the HTTP charset, else the page's own or a guess; errors replaced.

    Valid UTF-8 is practically never anything else, while headers and guesses are often wrong.
    """
    try:
        return html.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    named = charset or detect_encoding(html, from_html_meta=True) or "windows-1252"
    return str(bytes_to_str(html, named, fallback_encodings=("windows-1252",)))


def extract_html(
    html: bytes | str, url: str | None = None, *, extractor: Extractor = "auto", charset: str | None = None
) -> Extracted:
    """Read one page.

    Args:
        html: the page's bytes, or text already decoded.
        url: its address, which only helps the extractor.
        extractor: "auto" (see the module), or one reader alone; "union" reads like "auto", for what else would be
            asked is for the caller to decide, who knows the filters.
        charset: what the HTTP header said.
    """
    text = decode_html(html, charset) if isinstance(html, bytes) else html.encode("utf-8", "replace").decode()
    text = mend_c1(text)
    page = parse_page(text)
    if page is None:
        return Extracted("", "", "", "resiliparse")
    if page.too_deep:
        # Resiliparse's search for the main content is quadratic in the depth, its plain text is not
        found = _read_fast(text, main=False), "resiliparse"
    elif extractor == "justext":
        found = _read_justext(page), "justext"
    elif extractor == "resiliparse" or (extractor != "trafilatura" and len(text) > LARGE_PAGE):
        found = _read_fast(text), "resiliparse"
    elif extractor == "trafilatura":
        found = _read_whole(page, url), "trafilatura"
    else:
        found = _route(page, text, url)
    return Extracted(clean_characters(page.title), tidy_text(found[0]), page.lang, found[1])


def _route(page: Page, html: str, url: str | None) -> tuple[str, str]:
    """The text and who read it, by the cheapest way that can be trusted."""
    part = find_main_part(page.root)
    if part.element is not None:
        focused = _read_part(part.element, url)
        if len(focused) >= SHARE_OF_PROSE * part.mass:
            return focused, "focus"
    clean = _read_whole(page, url)
    if len(clean) < max(part.mass, MIN_MASS) and len(clean) < SHARE_OF_FAST * _visible(page.root):
        fast = _read_fast(html)
        if len(clean) < SHARE_OF_FAST * len(fast):
            return fast, "resiliparse"
    return clean, "trafilatura"


def _visible(root: Any) -> int:
    """Characters of text outside of links and scripts."""
    linked = sum(sum(map(len, part.itertext())) for part in root.iter("a", "script"))
    return sum(map(len, root.itertext())) - linked


def _read_fast(html: str, main: bool = True) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, main_content=main))


def _read_part(element: Any, url: str | None) -> str:
    """Trafilatura's reading of one element, as if it were the page."""
    root = element.makeelement("html")
    body = element.makeelement("body")
    root.append(body)
    inner = copy.deepcopy(element)
    inner.tail = None
    body.append(inner)
    _make_ready(root)
    return _read_clean(root, url)


def _read_whole(page: Page, url: str | None) -> str:
    """Trafilatura's reading of the whole page, with text in bare `<div>`s made paragraphs; changes the tree."""
    _make_ready(page.root)
    wrap_loose_text(page.root)
    return _read_clean(page.root, url)


def _make_ready(root: Any) -> None:
    drop_chrome(root)
    break_code_lines(root)
    fold_space(root)
    free_labels(root)
    drop_beside(root)


def _read_clean(tree: Any, url: str | None) -> str:
    import trafilatura

    text = trafilatura.extract(tree, options=_options())
    return flatten_layout_tables(str(text or ""))


@functools.cache
def _options() -> Any:
    """Trafilatura's settings; `dedup` keeps state between pages, so that the same page would give different texts."""
    from trafilatura.settings import Extractor as Settings

    return Settings(output_format="txt", fast=True, comments=False, dedup=False)


def _read_justext(page: Page) -> str:
    """The paragraphs that justext finds good (Pomikálek 2011), headings among them."""
    from lxml import etree

    words = _stop_words(page.lang)
    import justext

    paragraphs = justext.justext(etree.tostring(page.root, encoding="unicode", method="html"), words)
    return "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)


@functools.cache
def _stop_words(lang: str) -> frozenset[str]:
    """Stop words of the declared language and of English, for pages declare what they like; else of French too."""
    import justext

    names = [STOP_LISTS.get(lang, "French"), "English"]
    return frozenset().union(*map(justext.get_stoplist, names))


def flatten_layout_tables(text: str) -> str:
    """Write out table rows with at most one filled cell as plain lines: such tables only arrange notes and images."""
    lines: list[str] = []
    for line in text.split("\n"):
        if not line.startswith("|"):
            lines.append(line)
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        filled = [cell for cell in cells if cell]
        ruler = bool(filled) and all(set(cell) <= {"-", ":"} for cell in filled)
        if ruler and not (lines and lines[-1].startswith("|")):
            continue
        if len(filled) > 1:
            lines.append(line)
        elif filled:
            lines.append(filled[0])
    return "\n".join(lines)


_TRAILING: Final = re.compile(r"[ \t\u00a0]+$", re.MULTILINE)
_ONE_SPACE: Final = re.compile(r"^ (?=\S)", re.MULTILINE)
_BLANK: Final = re.compile(r"\n{3,}")


def tidy_text(text: str) -> str:
    """Fold line ends and blank lines; clean the characters; drop trailing spaces and a lone leading one."""
    text = clean_characters(text.replace("\r\n", "\n").replace("\r", "\n"))
    return _BLANK.sub("\n\n", _ONE_SPACE.sub("", _TRAILING.sub("", text))).strip()
