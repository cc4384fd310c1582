"""Where the main text of a page is: the smallest element that holds all its paragraphs of prose.

A careful extractor spends most of its time on the rest of the page: menus, link lists, footers. Finding the one
element that matters takes half a millisecond, and the careful extractor then reads a tree a fifth as large. Whether
that was right can be checked afterwards: the text must come out about as long as the paragraphs that were counted.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, Final

from causerie.data.htmltree import remove_keeping_tail

PROSE: Final = ("p", "pre", "blockquote", "li", "td", "dd")
LISTED: Final = frozenset(("li", "td", "dd"))
MIN_PROSE: Final = 60
"""Characters of a paragraph, from which it is taken for prose and not for a caption or a label."""
MIN_LISTED: Final = 100
"""The same for text that stands directly in a list item or a cell."""
MIN_MASS: Final = 500
"""Characters of prose on a page below which its place says nothing."""
SHARE_INSIDE: Final = 0.9
"""Share of a page's prose that the element must hold."""
MAX_BESIDE: Final = 0.1
"""Share of a page's text from which a part is not dropped for its name alone."""
NAMED: Final = ("div", "section", "ul", "ol", "p", "span", "table")
APART: Final = frozenset(("nav", "footer", "aside", "form", "header", "dialog", "figure"))
WHOLE: Final = frozenset(("html", "body"))
TRUSTED: Final = frozenset(("html", "body", "article", "main"))
BESIDE_THE_POINT: Final = re.compile(
    r"comment|disqus|side-?bar|footer|related|share|social|promo|newsletter|subscribe|cookie|consent|recommend|popular|"
    r"widget|breadcrumb|advert|banner|navbar|menu|teaser|caption|byline|copyright|disclaimer|author-?(?:bio|box|info)|"
    r"modal|popup",
    re.IGNORECASE,
)
"""Words in class and id that name what stands beside a main text."""


@dataclass(frozen=True)
class MainPart:
    """Where the prose of a page is.

    Attributes:
        element: the part to read, or None when the prose is all over the page, or too little to tell.
        mass: characters of prose outside of parts named as beside the point.
    """

    element: Any
    mass: int


def find_main_part(root: Any) -> MainPart:
    """The parent of the smallest element that holds nearly all prose."""
    masses: dict[Any, int] = {}
    beside: dict[Any, bool] = {}
    total = 0
    for block in root.iter(*PROSE):
        size = _prose(block)
        chain = _chain(block, beside) if size else None
        if chain is None:
            continue
        total += size
        for element in chain:
            masses[element] = masses.get(element, 0) + size
    if total < MIN_MASS:
        return MainPart(None, total)
    part = _narrow(root, masses, total)
    parent = part.getparent()
    if parent is not None and parent.tag != "html":
        part = parent
    return MainPart(None if part.tag in WHOLE else part, total)


def _prose(block: Any) -> int:
    """Characters of prose in a block: 0 for a short one, or one that is links for the most part."""
    if block.tag in LISTED:
        size = len(block.text or "") + sum(len(child.tail or "") for child in block)
        return size if size >= MIN_LISTED else 0
    if not len(block):
        size = len(block.text or "")
        return size if size >= MIN_PROSE else 0
    size = sum(map(len, block.itertext()))
    if size < MIN_PROSE:
        return 0
    linked = sum(sum(map(len, link.itertext())) for link in block.iter("a"))
    return 0 if linked * 2 > size else size


def _chain(block: Any, beside: dict[Any, bool]) -> list[Any] | None:
    """The elements around a block, inner first; None when one of them is beside the point."""
    chain = []
    for element in block.iterancestors():
        apart = beside.get(element)
        if apart is None:
            tag = element.tag
            apart = tag in APART or (tag not in TRUSTED and _named(element.get("class", ""), element.get("id", "")))
            beside[element] = apart
        if apart:
            return None
        chain.append(element)
    return chain


@functools.lru_cache(65_536)
def _named(classes: str, name: str) -> bool:
    return bool(BESIDE_THE_POINT.search(classes) or BESIDE_THE_POINT.search(name))


def drop_beside(root: Any) -> None:
    """Remove what is named as beside the point, unless much of the page's text is in it (a page has any name)."""
    limit = MAX_BESIDE * sum(map(len, root.itertext()))
    for element in list(root.iter(*NAMED)):
        if not _named(element.get("class", ""), element.get("id", "")):
            continue
        if sum(map(len, element.itertext())) < limit:
            remove_keeping_tail(element)


def _narrow(root: Any, masses: dict[Any, int], total: int) -> Any:
    part = root
    while True:
        inner = next((child for child in part if masses.get(child, 0) >= SHARE_INSIDE * total), None)
        if inner is None:
            return part
        part = inner
