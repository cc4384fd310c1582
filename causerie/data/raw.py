"""A document as a source gives it, before anything was read out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RawDocument:
    """One document of a source, or the place where one should have been.

    Attributes:
        source: short name of the file it is from.
        index: its number in that file, from 0.
        kind: "html" pages are extracted, "text" is taken as it is.
        body: the bytes; empty when there is a problem.
        url, title, charset, license: what the source says, or "".
        problem: "" or the rule that drops it unread: broken_record, http_status, not_html, empty.
        note: for a problem, what was said about it.
    """

    source: str
    index: int
    kind: Literal["html", "text"] = "text"
    body: bytes = b""
    url: str = ""
    title: str = ""
    charset: str = ""
    license: str = ""
    problem: str = ""
    note: str = ""

    @property
    def id(self) -> str:
        """The document's id: `file#number`, which leads back to its bytes."""
        return f"{self.source}#{self.index}"
