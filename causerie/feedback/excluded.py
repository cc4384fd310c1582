"""What is never trained on: a list kept by hand, and questions that judge candidates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError, sha256_json
from causerie.feedback.records import Exposure

KINDS: Final = ("user", "conversation", "answer", "source", "text")
"""What an entry can name; `text` is matched case-insensitively within prompts and answers."""


@dataclass(frozen=True)
class Excluded:
    """Entries of a do-not-train list by kind, and digests of questions kept apart."""

    entries: Mapping[str, frozenset[str]]
    questions: frozenset[str] = frozenset()

    def why(self, exposure: Exposure, user: str, others: Iterable[str] = ()) -> str:
        """The reason why a signal on this answer is left out: "do_not_train", "kept_apart" or ""."""
        named = {
            "user": {user, exposure.user},
            "conversation": {exposure.conversation or ""},
            "answer": {exposure.id, *others},
            "source": {exposure.source},
        }
        if any(names & self.entries.get(kind, frozenset()) for kind, names in named.items()):
            return "do_not_train"
        words = self.entries.get("text", frozenset())
        if words and any(word in text for text in _texts(exposure) for word in words):
            return "do_not_train"
        return "kept_apart" if self.questions and question_key(exposure.prompt) in self.questions else ""


def read_excluded(listed: Path | None, apart: Iterable[Path] = ()) -> Excluded:
    """Read a do-not-train list and the questions of judging files.

    Raises:
        CauserieError: CAU-1307 naming the line of an entry that is none, or a file that cannot be read.
    """
    entries: dict[str, set[str]] = {}
    for number, line in enumerate(_lines(listed) if listed else (), 1):
        text = line.split("#", 1)[0].strip() if not line.strip().startswith("text:") else line.strip()
        if not text:
            continue
        kind, found, value = text.partition(":")
        if not found or kind not in KINDS or not value.strip():
            raise _bad(f"{listed}:{number}", f"{text[:60]!r} is no entry")
        value = value.strip()
        entries.setdefault(kind, set()).add(value.lower() if kind == "text" else value)
    questions = {key for path in apart for key in _questions(path)}
    return Excluded({kind: frozenset(values) for kind, values in entries.items()}, frozenset(questions))


def question_key(prompt: Iterable[Mapping[str, Any]]) -> str:
    """Digest of a conversation's last question, blind to case and spacing."""
    asked = [str(message["content"]) for message in prompt if message["role"] == "user"]
    return sha256_json(["question", " ".join(asked[-1].lower().split())]) if asked else ""


def _questions(path: Path) -> Iterable[str]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            given = row.get("messages", row.get("prompt"))
        except (ValueError, AttributeError) as error:
            raise _bad(f"{path}:{number}", "not a JSON object") from error
        if isinstance(given, str):
            yield question_key([{"role": "user", "content": given}])
        elif isinstance(given, list):
            yield question_key(given)


def _texts(exposure: Exposure) -> Iterable[str]:
    yield exposure.text.lower()
    for message in exposure.prompt:
        yield message["content"].lower()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(str(path), f"cannot read: {error}") from error


def _bad(where: str, cause: str) -> CauserieError:
    fix = f"one entry a line: {':…, '.join(KINDS)}:…"
    return CauserieError("CAU-1307", cause, where=where, fix=fix)
