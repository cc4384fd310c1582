"""What callers and the engine say to each other: dataclasses, and the frames that carry them between processes.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON, one object with a `"type"`. Both sides
refuse frames above `MAX_FRAME` bytes before reading them. Torch-free.

Server to worker: `generate` (id, prompt_ids, sampling, salt), `cancel` (id), `stop`.
Worker to server: `info` (once, when the model is loaded), `admitted` (ids), `events`, `refused` (id, error), `fatal`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

from causerie.core import CauserieError

PROTOCOL: Final = 1
"""Version of the frames, told in the `info` frame."""
MAX_FRAME: Final = 8 * 2**20
"""Bytes of a frame's JSON, at most."""

Finish = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Sampling:
    """How the next tokens are chosen.

    The logits are changed in this order: penalties and bias, temperature, top-k, top-p (of what top-k left),
    min-p (relative to the likeliest token). Stop strings are for the caller, who knows text;
    the engine sees `stop_ids`.

    Raises:
        CauserieError: CAU-3102 naming the field that is out of range.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    """A sampled stop id ends the completion and is its last id."""
    seed: int | None = None
    """Same seed, same prompt: same tokens, alone or in a full batch. None draws a fresh seed."""
    logprobs: bool = False
    """Give each token's log-probability under the unmodified distribution at temperature 1."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    """Both penalties count the tokens of the completion, not of the prompt."""
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        _in_range("max_tokens", self.max_tokens, 1, 2**31, whole=True)
        _in_range("temperature", self.temperature, 0, 100)
        _in_range("top_p", self.top_p, 0, 1)
        _in_range("top_k", self.top_k, 0, 2**31, whole=True)
        _in_range("min_p", self.min_p, 0, 1)
        _in_range("frequency_penalty", self.frequency_penalty, -100, 100)
        _in_range("presence_penalty", self.presence_penalty, -100, 100)
        if self.seed is not None:
            _in_range("seed", self.seed, -(2**63), 2**64, whole=True)
        for _, bias in self.logit_bias:
            _in_range("logit_bias", bias, -1e4, 1e4)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; temperatures below 1e-5 count as 0."""
        return self.temperature < 1e-5


def _in_range(name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise CauserieError("CAU-3102", f"{name} is {value!r}", where=name, fix=f"give {what} from {low:g} to {high:g}")


@dataclass(frozen=True)
class Event:
    """What one step brought one request; the last one carries `finish`."""

    request_id: str
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens of the completion so far, a final stop id included."""
    cached_tokens: int = 0
    """Tokens of the prompt that were taken from the cache."""


@dataclass(frozen=True)
class Completion:
    """A finished answer: its ids (a final stop id included), log-probabilities where asked for, and why it ended."""

    ids: list[int]
    logprobs: list[float]
    finish: Finish
    prompt_tokens: int = 0


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


def generate_message(request_id: str, prompt_ids: list[int], sampling: Sampling, salt: str) -> dict[str, Any]:
    """The message that asks for a completion."""
    return {"type": "generate", "id": request_id, "prompt_ids": prompt_ids, "sampling": asdict(sampling), "salt": salt}


def read_generate(message: Mapping[str, Any]) -> tuple[str, list[int], Sampling, str]:
    """Request id, prompt ids, sampling and salt of a `generate` message.

    Raises:
        CauserieError: CAU-3105 for wrong types, CAU-3102 for settings out of range.
    """
    request_id, salt, ids = message.get("id"), message.get("salt", ""), message.get("prompt_ids")
    if not isinstance(request_id, str) or not isinstance(salt, str):
        raise malformed("a generate message without a string id and salt")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise malformed("prompt_ids is not a list of whole numbers")
    return request_id, ids, read_sampling(message.get("sampling")), salt


def read_sampling(value: Any) -> Sampling:
    """The sampling settings in a plain JSON object.

    Raises:
        CauserieError: CAU-3105 for unknown fields or wrong shapes, CAU-3102 for values out of range.
    """
    if not isinstance(value, dict) or not value.keys() <= {item.name for item in fields(Sampling)}:
        raise malformed("sampling is not an object with known fields")
    try:
        stop = tuple(str(text) for text in value.get("stop", ()))
        stop_ids = tuple(int(token) for token in value.get("stop_ids", ()))
        bias = tuple((int(token), float(number)) for token, number in value.get("logit_bias", ()))
    except (TypeError, ValueError) as error:
        raise malformed(f"sampling: {error}") from error
    return Sampling(**{**value, "stop": stop, "stop_ids": stop_ids, "logit_bias": bias})


def event_dict(event: Event) -> dict[str, Any]:
    """An event as plain JSON."""
    return asdict(event)


def read_event(value: Any) -> Event:
    """The event in a plain JSON object.

    Raises:
        CauserieError: CAU-3105 when its fields are not those of an event.
    """
    if not isinstance(value, dict) or not isinstance(value.get("request_id"), str):
        raise malformed("an event without a request id")
    try:
        event = Event(**value)
    except TypeError as error:
        raise malformed(f"an event: {error}") from error
    if not isinstance(event.ids, list) or not isinstance(event.logprobs, list):
        raise malformed("an event whose ids or logprobs are not lists")
    return event
