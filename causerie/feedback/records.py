"""The two records of feedback: an answer that somebody saw (`Exposure`) and what was said about it (`Signal`)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

from causerie.core import CauserieError, sha256_json
from causerie.store import check_text, new_id, now

Message = dict[str, str]
"""A chat message: `{"role": "system" | "user" | "assistant" | "tool", "content": text}`."""

Kind = Literal[
    "thumb", "choice", "edit", "regenerate", "imported_pair", "imported_label", "imported_answer", "imported_prompt",
    "imported_text", "imported_steps",
]  # fmt: skip
"""What was said, and how `Signal.value` says it:

- thumb, imported_label: `{"label": true | false}`;
- choice, imported_pair: `{"outcome": "chosen" | "tie" | "neither", "others": [exposure ids shown beside it]}`;
- regenerate: `{"discarded": [exposure ids]}`, the signal's own exposure being the one that was kept;
- edit: `{"text": the user's version}`;
- imported_answer: `{}`, the exposure's text being a demonstration;
- imported_prompt: `{}`, a prompt without an answer; imported_text: `{}`, a text that answers nothing;
- imported_steps: `{"steps": [texts], "labels": [whether each is right]}`. These three are kept and exported, and no
  round trains on them.
"""

KINDS: Final[tuple[str, ...]] = get_args(Kind)
OUTCOMES: Final = ("chosen", "tie", "neither")
ROLES: Final = ("system", "user", "assistant", "tool")

REASONS: Final = (
    "correct", "clear", "complete", "good_style", "wrong", "unclear", "incomplete", "too_long", "too_short",
    "off_topic", "ignored_instruction", "refused", "unsafe", "wrong_language", "other",
)  # fmt: skip
"""Reasons that the page offers; any other short lower-case word is taken too."""

TEXT_LIMIT: Final = 1_000_000
"""Most characters of a prompt, an answer or an edit."""

COMMENT_LIMIT: Final = 4_000
"""Most characters of a comment."""

REASON_LIMIT: Final = 12
"""Most reasons of one signal."""

IMPORTED: Final = "imported"
"""Model name of answers that no model of ours gave."""

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
_REASON = re.compile(r"[a-z0-9_]{1,40}")


@dataclass(frozen=True)
class Exposure:
    """An answer that somebody saw, with all that is needed to know how it came about.

    `version_key` is the key of the weights (and, for an adapter, so of its base); `token_ids` and `log_probs` are
    those of the answer at sampling time, for exact importance weights later. Answers shown together share
    `group_id`, and `position` is their order on the screen. Without `consent` it is never trained on.
    """

    user: str
    model: str
    prompt: tuple[Message, ...]
    text: str
    version_key: str = ""
    version: int | None = None
    chat_format: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    finish: str | None = None
    conversation: str | None = None
    message: str | None = None
    group_id: str | None = None
    position: int = 0
    consent: bool = False
    source: str = "page"
    licence: str = ""
    lang: str | None = None
    id: str = field(default_factory=lambda: new_id("exp"))
    created: float = field(default_factory=now)

    def __post_init__(self) -> None:
        _check_id(self.id, "exposure.id")
        _require(bool(self.user), "exposure.user", "is empty")
        _require(isinstance(self.text, str), "exposure.text", "is not a text")
        _require(len(self.text) <= TEXT_LIMIT, "exposure.text", f"is longer than {TEXT_LIMIT} characters")
        check_prompt(self.prompt)
        _require(
            len(self.log_probs) in (0, len(self.token_ids)),
            "exposure.log_probs",
            f"has {len(self.log_probs)} values for {len(self.token_ids)} tokens",
        )
        finite = all(math.isfinite(value) for value in self.log_probs)
        _require(finite, "exposure.log_probs", "holds a value that is not finite")
        check_text([self.user, self.model, self.text, list(self.prompt), dict(self.sampling)], "exposure")
        check_text([self.source, self.licence, self.group_id, self.conversation, self.message], "exposure")

    @property
    def prompt_key(self) -> str:
        """Digest of the prompt: equal for equal conversations."""
        return prompt_key(self.prompt)

    def row(self) -> dict[str, Any]:
        """The record as a row of the `exposures` table."""
        return {**_plain(self), "prompt_key": self.prompt_key}


@dataclass(frozen=True)
class Signal:
    """What somebody said about an answer; see `Kind` for the form of `value`."""

    exposure_id: str
    user: str
    kind: Kind
    value: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    comment: str = ""
    id: str = field(default_factory=lambda: new_id("sig"))
    created: float = field(default_factory=now)
    withdrawn: float | None = None

    def __post_init__(self) -> None:
        _check_id(self.id, "signal.id")
        _check_id(self.exposure_id, "signal.exposure_id")
        _require(bool(self.user), "signal.user", "is empty")
        _require(self.kind in KINDS, "signal.kind", f"is {self.kind!r}, not one of {', '.join(KINDS)}")
        _require(isinstance(self.comment, str), "signal.comment", "is not a text")
        _require(len(self.comment) <= COMMENT_LIMIT, "signal.comment", f"is longer than {COMMENT_LIMIT} characters")
        _require(len(self.reasons) <= REASON_LIMIT, "signal.reasons", f"has more than {REASON_LIMIT} entries")
        for reason in self.reasons:
            fits = isinstance(reason, str) and _REASON.fullmatch(reason) is not None
            _require(fits, "signal.reasons", f"holds {reason!r}: a short lower-case word was expected")
        check_text([self.user, self.comment, dict(self.value)], "signal")
        _check_value(self.kind, self.value, self.exposure_id)

    @property
    def others(self) -> tuple[str, ...]:
        """Ids of the other exposures that this signal speaks of."""
        return tuple(self.value.get("others", ())) + tuple(self.value.get("discarded", ()))

    def row(self) -> dict[str, Any]:
        """The record as a row of the `signals` table."""
        return _plain(self)


def _check_value(kind: str, value: Mapping[str, Any], exposure_id: str) -> None:
    if kind in ("thumb", "imported_label"):
        _require(isinstance(value.get("label"), bool), "signal.value.label", "is not true or false")
    elif kind in ("choice", "imported_pair"):
        _require(value.get("outcome") in OUTCOMES, "signal.value.outcome", f"is not one of {', '.join(OUTCOMES)}")
        _check_others(value.get("others"), "signal.value.others", exposure_id)
    elif kind == "regenerate":
        _check_others(value.get("discarded"), "signal.value.discarded", exposure_id)
    elif kind == "imported_steps":
        steps, labels = value.get("steps"), value.get("labels")
        fits = isinstance(steps, list | tuple) and isinstance(labels, list | tuple) and 0 < len(steps) == len(labels)
        _require(fits, "signal.value", "does not hold as many steps as labels")
    elif kind == "edit":
        text = value.get("text")
        _require(isinstance(text, str) and bool(text.strip()), "signal.value.text", "is empty")
        _require(len(str(text)) <= TEXT_LIMIT, "signal.value.text", f"is longer than {TEXT_LIMIT} characters")


def _check_others(ids: Any, where: str, exposure_id: str) -> None:
    _require(isinstance(ids, list | tuple) and 1 <= len(ids) <= 16, where, "is not a list of 1 to 16 exposure ids")
    for other in ids:
        _check_id(other, where)
        _require(other != exposure_id, where, "holds the signal's own exposure")


def check_prompt(prompt: Sequence[Mapping[str, Any]], where: str = "exposure.prompt") -> None:
    """Refuse a prompt that is not a conversation ending with something to answer.

    Raises:
        CauserieError: CAU-1301.
    """
    _require(len(prompt) > 0, where, "is empty")
    total = 0
    for message in prompt:
        fits = isinstance(message, Mapping) and message.get("role") in ROLES and isinstance(message.get("content"), str)
        _require(fits, where, "holds something that is not a message with role and content")
        total += len(message["content"])
    _require(total <= TEXT_LIMIT, where, f"is longer than {TEXT_LIMIT} characters")
    _require(prompt[-1]["role"] in ("user", "tool"), where, "does not end with a message to answer")


def prompt_key(prompt: Sequence[Mapping[str, Any]]) -> str:
    """Digest of a prompt's roles and contents: 64 hex digits."""
    return sha256_json([[message["role"], message["content"]] for message in prompt])


def opening_key(prompt: Sequence[Mapping[str, Any]]) -> str:
    """Digest of a conversation's first user message: turns of one conversation share it."""
    opening = next((message["content"] for message in prompt if message["role"] == "user"), "")
    return sha256_json(["opening", opening])


def exposure_from_row(row: Mapping[str, Any]) -> Exposure:
    """An `Exposure` from a table row or a line of an export (unknown fields are passed over).

    Raises:
        CauserieError: CAU-1301 when a field is missing or breaks its rule.
    """
    values = _known(Exposure, row, "exposure")
    for name in ("prompt", "token_ids", "log_probs"):
        if name in values:
            _require(isinstance(values[name], list | tuple), f"exposure.{name}", "is not a list")
            values[name] = tuple(values[name])
    return Exposure(**values)


def signal_from_row(row: Mapping[str, Any]) -> Signal:
    """A `Signal` from a table row or a line of an export (unknown fields are passed over).

    Raises:
        CauserieError: CAU-1301 when a field is missing or breaks its rule.
    """
    values = _known(Signal, row, "signal")
    if "reasons" in values:
        _require(isinstance(values["reasons"], list | tuple), "signal.reasons", "is not a list")
        values["reasons"] = tuple(values["reasons"])
    _require(isinstance(values.get("value", {}), Mapping), "signal.value", "is not an object")
    return Signal(**values)


def _known(record: type[Exposure] | type[Signal], row: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {item.name: item for item in fields(record)}
    required = ("user", "model", "prompt", "text") if record is Exposure else ("exposure_id", "user", "kind")
    for name in required:
        _require(name in row, f"{where}.{name}", "is missing")
    return {name: row[name] for name in known if name in row}


def _plain(record: Exposure | Signal) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(record).items()}


def _check_id(value: Any, where: str) -> None:
    _require(isinstance(value, str) and _ID.fullmatch(value) is not None, where, f"{value!r} is not an id")


def _require(holds: bool, where: str, cause: str) -> None:
    if not holds:
        raise CauserieError("CAU-1301", f"{where} {cause}", where=where, fix="correct the field and send it again")
