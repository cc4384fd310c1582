"""The forms in which others keep feedback, each read into exposures and signals.

A row's form is recognised by its fields: TRL's dataset types (`prompt/chosen/rejected`, `chosen/rejected`,
`prompt/completion/label`, `prompt/completions/labels`, `prompt/completion`, `prompt`, `messages`, `text`; texts or
message lists), hh-rlhf transcripts, ShareGPT pairs (`conversations/chosen/rejected`), Open WebUI's feedback export,
and our own export.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from causerie.core import CauserieError, sha256_json
from causerie.feedback.open_webui import siblings_of
from causerie.feedback.records import IMPORTED, Exposure, Kind, Message, Signal, exposure_from_row, signal_from_row

_ROLE_NAMES: Final = {
    "human": "user", "user": "user", "prompter": "user", "gpt": "assistant", "assistant": "assistant",
    "model": "assistant", "bot": "assistant", "system": "system", "tool": "tool",
}  # fmt: skip
_TURN: Final = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")
_NOT_A_WORD: Final = re.compile(r"[^a-z0-9]+")

Parsed = tuple[list[Exposure], list[Signal]]


@dataclass(frozen=True)
class Origin:
    """What every row of an import carries: its source, licence and language unless the row says otherwise."""

    source: str
    licence: str
    lang: str = ""


class BadRowError(ValueError):
    """A row that cannot be read as feedback; the text says why."""


def parse_row(row: Mapping[str, Any], origin: Origin) -> tuple[str, Parsed]:
    """Read one row: the name of its form, and its exposures and signals.

    Raises:
        BadRowError: when no form fits, or the row breaks its form's rules.
    """
    own = Origin(
        str(row.get("source") or origin.source),
        str(row.get("license") or row.get("licence") or origin.licence),
        str(row.get("lang") or origin.lang),
    )
    try:
        return _parse(row, own)
    except CauserieError as error:
        raise BadRowError(error.cause) from error


def _parse(row: Mapping[str, Any], origin: Origin) -> tuple[str, Parsed]:
    has = row.keys()
    if "causerie" in has:
        return _own(row)
    if "data" in has and "meta" in has and isinstance(row["data"], Mapping):
        return "open-webui", _open_webui(row, origin)
    if {"chosen", "rejected"} <= has:
        return _preference(row, origin)
    if {"prompt", "completions", "labels"} <= has:
        return "stepwise", _stepwise(row, origin)
    if {"prompt", "completion"} <= has:
        prompt, answer = _messages_of(row["prompt"], "prompt"), _answer(row["completion"], "completion")
        if "label" in has:
            return "label", label_records(prompt, answer, _truth(row["label"]), origin)
        return "completion", _demonstration(prompt, answer, origin)
    if "messages" in has:
        messages = _messages_of(row["messages"], "messages")
        if messages[-1]["role"] != "assistant":
            raise BadRowError("messages do not end with the assistant's answer")
        return "messages", _demonstration(messages[:-1], messages[-1]["content"], origin)
    if "prompt" in has:
        return "prompt-only", _alone("imported_prompt", _messages_of(row["prompt"], "prompt"), "", origin)
    if "text" in has:
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise BadRowError("the text is empty, or none")
        return "text", _alone("imported_text", [{"role": "user", "content": ""}], row["text"], origin)
    raise BadRowError(f"no known form has the fields {', '.join(sorted(map(str, has))) or '(none)'}")


def _own(row: Mapping[str, Any]) -> tuple[str, Parsed]:
    if row["causerie"] == "exposure":
        return "causerie", ([exposure_from_row(row)], [])
    if row["causerie"] == "signal":
        return "causerie", ([], [signal_from_row(row)])
    raise BadRowError(f"record type {row['causerie']!r} is not exposure or signal")


def _preference(row: Mapping[str, Any], origin: Origin) -> tuple[str, Parsed]:
    chosen, rejected = row["chosen"], row["rejected"]
    if "conversations" in row:
        prompt = _messages_of(row["conversations"], "conversations")
        return "sharegpt", pair_records(prompt, _answer(chosen, "chosen"), _answer(rejected, "rejected"), origin)
    if "prompt" in row:
        prompt = _messages_of(row["prompt"], "prompt")
        return "pair", pair_records(prompt, _answer(chosen, "chosen"), _answer(rejected, "rejected"), origin)
    if isinstance(chosen, str) and isinstance(rejected, str) and not _is_transcript(chosen):
        return "implicit-prompt", pair_records(*_common_beginning(chosen, rejected), origin)
    if isinstance(chosen, str) and isinstance(rejected, str):
        return "hh-rlhf", pair_records(*_diverging(_transcript(chosen), _transcript(rejected)), origin)
    both = _messages_of(chosen, "chosen"), _messages_of(rejected, "rejected")
    return "implicit-prompt", pair_records(*_diverging(*both), origin)


def pair_records(prompt: list[Message], chosen: str, rejected: str, origin: Origin) -> Parsed:
    """Two answers to one prompt of which the first was preferred, as two exposures and a signal."""
    if not chosen.strip():
        raise BadRowError("the chosen answer is empty")
    if chosen == rejected:
        raise BadRowError("the chosen and the rejected answer are equal")
    better, worse = _exposure(prompt, chosen, origin), _exposure(prompt, rejected, origin)
    group = _digest_id("grp", [better.id, worse.id])
    shown = [_in_group(better, group, 0), _in_group(worse, group, 1)]
    return shown, [_signal("imported_pair", better.id, {"outcome": "chosen", "others": [worse.id]}, origin)]


def label_records(prompt: list[Message], answer: str, label: bool, origin: Origin) -> Parsed:
    """An answer that was called good or bad, as an exposure and a signal; an empty one may be called bad only."""
    if label and not answer.strip():
        raise BadRowError("the liked answer is empty")
    shown = _exposure(prompt, answer, origin)
    return [shown], [_signal("imported_label", shown.id, {"label": label}, origin)]


def _demonstration(prompt: list[Message], answer: str, origin: Origin) -> Parsed:
    if not answer.strip():
        raise BadRowError("the answer is empty")
    shown = _exposure(prompt, answer, origin)
    return [shown], [_signal("imported_answer", shown.id, {}, origin)]


def _alone(
    kind: Literal["imported_prompt", "imported_text"], prompt: list[Message], text: str, origin: Origin
) -> Parsed:
    """A prompt without an answer, or a text without a prompt."""
    shown = _exposure(prompt, text, origin)
    return [shown], [_signal(kind, shown.id, {}, origin)]


def _stepwise(row: Mapping[str, Any], origin: Origin) -> Parsed:
    steps, labels = row["completions"], row["labels"]
    if not isinstance(steps, list) or not isinstance(labels, list) or not 0 < len(steps) == len(labels):
        raise BadRowError("completions and labels are not lists of one length")
    if not all(isinstance(step, str) for step in steps):
        raise BadRowError("completions holds something that is not a text")
    shown = _exposure(_messages_of(row["prompt"], "prompt"), "\n".join(steps), origin)
    value = {"steps": steps, "labels": [_truth(label) for label in labels]}
    return [shown], [_signal("imported_steps", shown.id, value, origin)]


def _exposure(prompt: list[Message], text: str, origin: Origin, **more: Any) -> Exposure:
    values: dict[str, Any] = {
        "id": _digest_id("exp", [origin.source, prompt, text]),
        "user": f"import:{origin.source}",
        "model": IMPORTED,
        "source": origin.source,
        "licence": origin.licence,
        "lang": origin.lang or None,
        "consent": True,
    }
    return Exposure(prompt=tuple(prompt), text=text, **{**values, **more})


def _in_group(exposure: Exposure, group: str, position: int) -> Exposure:
    return Exposure(**{**vars(exposure), "group_id": group, "position": position})


def _signal(
    kind: Kind,
    exposure_id: str,
    value: dict[str, Any],
    origin: Origin,
    **more: Any,
) -> Signal:
    name = _digest_id("sig", [origin.source, kind, exposure_id, value])
    return Signal(exposure_id, kind=kind, value=value, **{"user": f"import:{origin.source}", "id": name, **more})


def _digest_id(prefix: str, value: Any) -> str:
    """An id that is equal for equal content, so that importing a file twice adds nothing."""
    return f"{prefix}_{sha256_json(value)[:24]}"


def _messages_of(value: Any, where: str) -> list[Message]:
    """Messages from a text (one user message) or a list in OpenAI's or ShareGPT's form."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, Sequence) or not value:
        raise BadRowError(f"{where} is neither a text nor a list of messages")
    return [_message(item, where) for item in value]


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise BadRowError(f"{where} holds something that is not a message")
    role = _ROLE_NAMES.get(str(item.get("role", item.get("from"))).lower())
    content = item.get("content", item.get("value"))
    if role is None:
        raise BadRowError(f"{where} holds a message of the unknown role {item.get('role', item.get('from'))!r}")
    if not isinstance(content, str):
        raise BadRowError(f"{where} holds a message without text")
    return {"role": role, "content": content}


def _answer(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    found = [_message(value, where)] if isinstance(value, Mapping) else _messages_of(value, where)
    if len(found) != 1 or found[0]["role"] != "assistant":
        raise BadRowError(f"{where} is not one answer of the assistant")
    return found[0]["content"]


def _truth(value: Any) -> bool:
    if value in (0, 1):
        return bool(value)
    raise BadRowError(f"label is {value!r}, not true or false")


def _is_transcript(text: str) -> bool:
    return re.match(r"\s*(?:Human|Assistant):", text) is not None


def _common_beginning(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    """TRL's implicit prompt of plain texts: what both begin with, up to the last word that both share."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    shared = "".join(left for left, _ in pairs)
    if shared in (chosen, rejected):
        raise BadRowError("the two texts are equal, or one only goes on where the other ends")
    cut = max(shared.rfind(" "), shared.rfind("\n")) + 1
    if not shared[:cut].strip():
        raise BadRowError("the two texts share no beginning: their prompt is not known")
    return [{"role": "user", "content": shared[:cut].strip()}], chosen[cut:].strip(), rejected[cut:].strip()


def _transcript(text: str) -> list[Message]:
    """Turns of an hh-rlhf transcript; turns of one speaker that follow each other are joined."""
    parts = _TURN.split(text)
    if len(parts) < 3 or parts[0].strip():
        raise BadRowError("not a transcript of Human and Assistant turns")
    turns: list[Message] = []
    for speaker, content in zip(parts[1::2], parts[2::2], strict=True):
        role = _ROLE_NAMES[speaker.lower()]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + content.strip()
        else:
            turns.append({"role": role, "content": content.strip()})
    return turns


def _diverging(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], str, str]:
    """The shared beginning of two conversations, and the two answers at which they part."""
    for index, (left, right) in enumerate(zip(chosen, rejected, strict=False)):
        if left != right:
            if left["role"] != "assistant" or right["role"] != "assistant":
                raise BadRowError("the two transcripts part before an answer of the assistant")
            return chosen[:index], left["content"], right["content"]
    raise BadRowError("the two transcripts are equal, or one only goes on where the other ends")


def _open_webui(row: Mapping[str, Any], origin: Origin) -> Parsed:
    """One rating of Open WebUI's feedback export, with the conversation from its snapshot."""
    data, meta = row["data"], row["meta"]
    rating = str(data.get("rating"))
    if rating not in ("1", "-1"):
        raise BadRowError(f"rating is {data.get('rating')!r}, not 1 or -1")
    chat: Any = (row.get("snapshot") or {}).get("chat") or {}
    history = (chat.get("chat") or chat).get("history") or {}
    messages = history.get("messages") or {}
    branch = _branch(messages, meta.get("message_id"))
    user = f"{origin.source}:{row.get('user_id', 'unknown')}"
    model = str(data.get("model_id") or IMPORTED)
    shown = _exposure(branch[:-1], branch[-1]["content"], origin, user=user, model=model)
    words = [_NOT_A_WORD.sub("_", str(word).lower()).strip("_")[:40] for word in [data.get("reason") or ""]]
    more = {"user": user, "comment": str(data.get("comment") or "")[:4000], "reasons": tuple(filter(None, words))}
    said = [_signal("imported_label", shown.id, {"label": rating == "1"}, origin, **more)]
    if not data.get("sibling_model_ids"):
        return [shown], said
    others = [
        _exposure(branch[:-1], text, origin, user=user) for text in siblings_of(messages, str(meta.get("message_id")))
    ]
    others = [other for other in others if other.text != shown.text]
    said += [_arena(shown, other, rating == "1", origin, user) for other in others]
    return [shown, *others], said[1:] or said


def _arena(rated: Exposure, other: Exposure, won: bool, origin: Origin, user: str) -> Signal:
    """An arena vote: the rated answer against one beside it."""
    better, worse = (rated, other) if won else (other, rated)
    value = {"outcome": "chosen", "others": [worse.id]}
    return _signal("imported_pair", better.id, value, origin, user=user)


def _branch(messages: Mapping[str, Any], last: Any) -> list[Message]:
    """Messages from the root of a tree to the message `last`, which must be an answer."""
    branch: list[Message] = []
    name, seen = last, set()
    while isinstance(name, str) and isinstance(messages.get(name), Mapping) and name not in seen:
        seen.add(name)
        branch.insert(0, _message(messages[name], "snapshot"))
        name = messages[name].get("parentId")
    if len(branch) < 2 or branch[-1]["role"] != "assistant":
        raise BadRowError("the snapshot does not hold the rated answer and its question")
    return branch
