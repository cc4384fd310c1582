"""The frames that carry requests and events between the server's process and the engine's.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON, one object with a `"type"`. Both sides
refuse frames above `MAX_FRAME` bytes before reading them. Torch-free.

Server to worker: `load` (model, config; once, the first), `generate` (id, prompt_ids, sampling, salt, priority),
`embed` (id, prompt_ids, pooling, adapter, salt), `cancel` (id), `stop`, and calls, each answered by one `reply` or
`refused`: `load_adapter` (id, name, folder), `unload_adapter` (id, name), `update_weights` (id, folder).
Worker to server: `info` (once, when the model is loaded), `admitted` (ids), `events` (now and then with `stats`),
`refused` (id, error), `reply` (id), `fatal`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from causerie.core import CauserieError
from causerie.infer.request import POOLINGS, Event, Grammar, Pooling, Sampling

PROTOCOL: Final = 2
"""Version of the frames, told in the `info` frame."""
MAX_FRAME: Final = 8 * 2**20
"""Bytes of a frame's JSON, at most."""


def malformed(cause: str) -> CauserieError:
    """The error for a message that breaks the protocol."""
    return CauserieError("CAU-3105", cause, where="engine socket", fix="use the same version on both sides")


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """One message as bytes for the socket.

    Raises:
        CauserieError: CAU-3105 when it is longer than `MAX_FRAME`.
    """
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")
    if len(body) > MAX_FRAME:
        raise malformed(f"a message of {len(body)} bytes; at most {MAX_FRAME} are allowed")
    return struct.pack(">I", len(body)) + body


def frame_length(header: bytes) -> int:
    """Length of the JSON that follows a frame's 4-byte header.

    Raises:
        CauserieError: CAU-3105 when it is 0 or above `MAX_FRAME`.
    """
    (length,) = struct.unpack(">I", header)
    if not 0 < length <= MAX_FRAME:
        raise malformed(f"a frame says it holds {length} bytes; 1 to {MAX_FRAME} are allowed")
    return int(length)


def decode_message(body: bytes) -> dict[str, Any]:
    """The message in a frame's JSON.

    Raises:
        CauserieError: CAU-3105 when it is not a JSON object with a string `"type"`.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise malformed(f"a frame is not JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise malformed("a frame is not an object with a type")
    return message


class FrameBuffer:
    """Bytes as they arrive from a socket, given back as whole messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def push(self, data: bytes) -> list[dict[str, Any]]:
        """Add bytes and return the messages that are now complete.

        Raises:
            CauserieError: CAU-3105 as `frame_length` and `decode_message` do.
        """
        self._bytes += data
        messages = []
        while len(self._bytes) >= 4:
            end = 4 + frame_length(bytes(self._bytes[:4]))
            if len(self._bytes) < end:
                break
            messages.append(decode_message(bytes(self._bytes[4:end])))
            del self._bytes[:end]
        return messages


def generate_message(
    request_id: str, prompt_ids: list[int], sampling: Sampling, salt: str, priority: int = 0
) -> dict[str, Any]:
    """The message that asks for a completion."""
    settings = {name: value for name, value in asdict(sampling).items() if value != _DEFAULTS[name]}
    message = {"type": "generate", "id": request_id, "prompt_ids": prompt_ids, "sampling": settings, "salt": salt}
    return {**message, "priority": priority} if priority else message


def read_generate(message: Mapping[str, Any]) -> tuple[str, list[int], Sampling, str, int]:
    """Request id, prompt ids, sampling, salt and priority of a `generate` message.

    Raises:
        CauserieError: CAU-3105 for wrong types, CAU-3102 for settings out of range.
    """
    request_id, salt, priority = message.get("id"), message.get("salt", ""), message.get("priority", 0)
    if not isinstance(request_id, str) or not isinstance(salt, str) or type(priority) is not int:
        raise malformed("a generate message without a string id and salt and a whole priority")
    ids = read_ids(message.get("prompt_ids"))
    return request_id, ids, read_sampling(message.get("sampling")), salt, priority


def embed_message(request_id: str, ids: list[int], pooling: Pooling, adapter: str | None, salt: str) -> dict[str, Any]:
    """The message that asks for an embedding."""
    return {
        "type": "embed",
        "id": request_id,
        "prompt_ids": ids,
        "pooling": pooling,
        "adapter": adapter,
        "salt": salt,
    }


def read_embed(message: Mapping[str, Any]) -> tuple[str, list[int], Pooling, str | None, str]:
    """Request id, token ids, pooling, adapter and salt of an `embed` message.

    Raises:
        CauserieError: CAU-3105 for wrong types, CAU-3102 for an unknown pooling.
    """
    request_id, salt, adapter = message.get("id"), message.get("salt", ""), message.get("adapter")
    pooling = message.get("pooling")
    if not isinstance(request_id, str) or not isinstance(salt, str) or not isinstance(adapter, str | None):
        raise malformed("an embed message without a string id, salt and adapter")
    if pooling not in POOLINGS:
        raise CauserieError("CAU-3102", f"pooling is {pooling!r}", where="pooling", fix="use mean or last")
    return request_id, read_ids(message.get("prompt_ids")), pooling, adapter, salt


def read_ids(value: Any) -> list[int]:
    """A list of token ids.

    Raises:
        CauserieError: CAU-3105 when it is anything else.
    """
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise malformed("token ids are not a list of whole numbers")
    return value


def read_sampling(value: Any) -> Sampling:
    """The sampling settings in a plain JSON object.

    Raises:
        CauserieError: CAU-3105 for unknown fields or wrong shapes, CAU-3102 for values out of range.
    """
    if not isinstance(value, dict) or not value.keys() <= _DEFAULTS.keys():
        raise malformed("sampling is not an object with known fields")
    grammar = value.get("grammar")
    try:
        stop = tuple(str(text) for text in value.get("stop", ()))
        stop_ids = tuple(int(token) for token in value.get("stop_ids", ()))
        bias = tuple((int(token), float(number)) for token, number in value.get("logit_bias", ()))
        shape = None if grammar is None else Grammar(**grammar)
    except (TypeError, ValueError) as error:
        raise malformed(f"sampling: {error}") from error
    return Sampling(**{**value, "stop": stop, "stop_ids": stop_ids, "logit_bias": bias, "grammar": shape})


def event_dict(event: Event) -> dict[str, Any]:
    """An event as plain JSON; what is empty is left out."""
    values = ((name, getattr(event, name)) for name in _EVENT_FIELDS)
    return {name: value for name, value in values if value or value == 0}


def read_event(value: Any) -> Event:
    """The event in a plain JSON object.

    Raises:
        CauserieError: CAU-3105 when its fields are not those of an event.
    """
    if not isinstance(value, dict) or not isinstance(value.get("request_id"), str):
        raise malformed("an event without a request id")
    try:
        for name in ("top_logprobs", "prompt_top_logprobs"):
            if value.get(name):
                value = {**value, name: [[(token, score) for token, score in some] for some in value[name]]}
        event = Event(**value)
    except (TypeError, ValueError) as error:
        raise malformed(f"an event: {error}") from error
    if not isinstance(event.ids, list) or not isinstance(event.logprobs, list):
        raise malformed("an event whose ids or logprobs are not lists")
    return event


_DEFAULTS: Final = {item.name: getattr(Sampling(), item.name) for item in fields(Sampling)}
_EVENT_FIELDS: Final = tuple(item.name for item in fields(Event))
