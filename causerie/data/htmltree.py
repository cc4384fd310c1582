"""A page as a tree that is cheap to read: parsed once, stripped of what no reader sees, its white space folded.

Everything that takes a while is done by libxml2 in C; Python touches only the elements that hold text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

BLOCKS: Final = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt"),
        *("fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr"),
        *("iframe", "li", "main", "menu", "nav", "noscript", "ol", "p", "pre", "script", "section", "style", "summary"),
        *("table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", "video"),
    )
)
INVISIBLE: Final = (
    *("style", "svg", "iframe", "object", "embed", "applet", "canvas", "audio", "video", "template", "link", "source"),
    *("track", "input", "button", "select", "option", "map", "area", "frame", "frameset", "dialog"),
)
CHROME: Final = ("nav", "footer", "aside", "menu", "noscript")
LITERAL: Final = frozenset(("pre", "textarea", "script", "style"))
RUNNING: Final = frozenset(("p", "li", "dd", "td", "span", "strong", "em"))
KEPT_SCRIPT: Final = "linked-data"
_SPACE: Final = re.compile(r"[ \t\r\n\f\u00a0]+")
_SPACES: Final = re.compile(r"[\t\r\n\f\u00a0]|  ")
_PRINTABLE: Final = bytes(0x20 if byte < 0x20 and byte not in b"\t\n\r" else byte for byte in range(256))


@dataclass(frozen=True)
class Page:
    """A parsed page.

    Attributes:
        root: the `<html>` element (lxml), without scripts, styles, frames and controls.
        title: what `<title>` says, white space folded.
        lang: what `<html lang>` says, two letters in lower case, or "".
        too_deep: the nesting passed the parser's limit, and text below it is missing from `root`.
    """

    root: Any
    title: str
    lang: str
    too_deep: bool


def parse_page(html: str) -> Page | None:
    """Parse one page; None when there is nothing in it that a parser would call an element.

    Raises:
        MemoryError: the process may not take as much memory as the tree needs.
    """
    from lxml import etree

    parser = _parser()
    try:
        root = etree.fromstring(html.encode("utf-8", "replace").translate(_PRINTABLE), parser)
    except etree.XMLSyntaxError as error:
        if any(entry.type == etree.ErrorTypes.ERR_NO_MEMORY for entry in parser.error_log):
            raise MemoryError("the page's tree") from error
        return None
    if root is None or not isinstance(root.tag, str):
        return None
    too_deep = any("depth" in entry.message.lower() for entry in parser.error_log)
    title = " ".join((root.findtext(".//title") or "").split())
    lang = (root.get("lang") or root.get("xml:lang") or "")[:2].lower()
    _strip(root)
    return Page(root, title, lang, too_deep)


def _parser() -> Any:
    """A parser whose elements are `lxml.html`'s without a look-up in Python for each of them."""
    from lxml import etree, html

    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, collect_ids=False)
    parser.set_element_class_lookup(etree.ElementDefaultClassLookup(element=html.HtmlElement))
    return parser


def _strip(root: Any) -> None:
    """Remove what is never text; scripts too, except linked data, which can hold the article's text."""
    from lxml import etree

    for script in root.xpath("//script[@type='application/ld+json']"):
        script.tag = KEPT_SCRIPT
    etree.strip_elements(root, "script", *INVISIBLE, with_tail=False)
    for script in root.iter(KEPT_SCRIPT):
        script.tag = "script"


def drop_chrome(root: Any) -> None:
    """Remove the elements that say themselves that they are no main text."""
    from lxml import etree

    etree.strip_elements(root, *CHROME, with_tail=False)


def remove_keeping_tail(element: Any) -> None:
    """Take an element out of its tree; the text behind it stays."""
    parent, before, tail = element.getparent(), element.getprevious(), element.tail
    if parent is None:
        return
    if tail and before is None:
        parent.text = (parent.text or "") + tail
    elif tail:
        before.tail = (before.tail or "") + tail
    parent.remove(element)


def fold_space(root: Any) -> None:
    """Fold white space outside `<pre>`: a line break in HTML source is not one in the text."""
    inside: set[Any] = set()
    for element in root.iter():
        literal = element.tag in LITERAL or (bool(inside) and element.getparent() in inside)
        if literal:
            inside.add(element)
        elif (text := element.text) and _SPACES.search(text):
            element.text = _SPACE.sub(" ", text)
        if (tail := element.tail) and _SPACES.search(tail) and (not inside or element.getparent() not in inside):
            element.tail = _SPACE.sub(" ", tail)


def break_code_lines(root: Any) -> None:
    """Write `<br>` inside `<pre>` as line breaks: extractors keep the lines of a program, not its indentation else."""
    for block in list(root.iter("pre")):
        if block.find(".//br") is None:
            continue
        for line_break in block.iter("br"):
            line_break.tail = "\n" + (line_break.tail or "")
        code = block.makeelement("code")
        code.text = "".join(block.itertext()).replace("\u00a0", " ")
        tail = block.tail
        block.clear()
        block.tail = tail
        block.append(code)


def wrap_loose_text(root: Any) -> None:
    """Put text that stands directly in a `<div>` into paragraphs, where readers look for it.

    Whole manuals are written as `<div class="para">`; trafilatura loses the words around their inline markup.
    """
    for div in list(root.iter("div")):
        _wrap_inline(div)


def _wrap_inline(div: Any) -> None:
    loose = [div.text, *(child.tail for child in div)]
    if not any(part and part.strip() for part in loose):
        return
    if not any(child.tag in BLOCKS for child in div):
        div.tag = "p"
        return
    run = div.makeelement("p")
    run.text, div.text = div.text, None
    position = 0
    for child in list(div):
        if child.tag not in BLOCKS and isinstance(child.tag, str):
            run.append(child)  # takes its tail along
            continue
        position = _place(div, run, position) + 1
        run = div.makeelement("p")
        run.text, child.tail = child.tail, None
    _place(div, run, position)


def _place(div: Any, run: Any, position: int) -> int:
    """Insert the paragraph unless it is empty; the position after it."""
    if len(run) == 0 and not (run.text or "").strip():
        return position
    div.insert(position, run)
    return position + 1


def free_labels(root: Any) -> None:
    """Strip the class of inline elements amid running text: `<span class="guimenu">` there is a word, not a menu."""
    for element in root.iter("span", "strong", "em", "code", "kbd", "a"):
        parent, before = element.getparent(), element.getprevious()
        lead = parent.text if before is None else before.tail
        if element.get("class") and parent.tag in RUNNING and ((lead or "").strip() or (element.tail or "").strip()):
            del element.attrib["class"]
