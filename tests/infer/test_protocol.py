"""Frames and messages: round trips, and refusal of what is malformed or too long."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causerie.core import CauserieError
from causerie.infer import Event, Sampling
from causerie.infer.protocol import (
    MAX_FRAME,
    FrameBuffer,
    decode_message,
    encode_frame,
    event_dict,
    frame_length,
    generate_message,
    read_event,
    read_generate,
    read_sampling,
)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=4), cut=st.integers(1, 7))
def test_messages_survive_any_cutting_of_the_stream(texts: list[str], cut: int) -> None:
    messages = [{"type": "x", "text": text} for text in texts]
    stream = b"".join(map(encode_frame, messages))
    buffer = FrameBuffer()
    found = [item for start in range(0, len(stream), cut) for item in buffer.push(stream[start : start + cut])]
    assert found == messages


def test_a_request_arrives_as_it_was_sent() -> None:
    sampling = Sampling(max_tokens=3, stop=("\n", "é"), stop_ids=(1, 2), seed=-5, logit_bias=((4, -1.5),), top_k=9)
    message = decode_message(encode_frame(generate_message("a", [1, 2, 3], sampling, "salt"))[4:])
    assert read_generate(message) == ("a", [1, 2, 3], sampling, "salt", 0)


def test_an_event_arrives_as_it_was_sent() -> None:
    event = Event("a", [4], [-0.5], "stop", 3, 1, 2)
    assert read_event(json.loads(json.dumps(event_dict(event)))) == event


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 2**32 - 1])
def test_impossible_lengths_are_refused_before_reading(length: int) -> None:
    with pytest.raises(CauserieError) as caught:
        frame_length(struct.pack(">I", length))
    assert caught.value.code == "CAU-3105"


def test_messages_too_long_are_not_sent() -> None:
    with pytest.raises(CauserieError):
        encode_frame({"type": "x", "text": "a" * MAX_FRAME})


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b'{"type": 3}', b"{}", b"[" * 100_000], ids=lambda b: b[:9])
def test_malformed_json_is_refused(body: bytes) -> None:
    with pytest.raises(CauserieError) as caught:
        decode_message(body)
    assert caught.value.code == "CAU-3105"


@pytest.mark.parametrize(
    "change",
    [
        {"id": 3},
        {"salt": None},
        {"prompt_ids": "abc"},
        {"prompt_ids": [1, True]},
        {"prompt_ids": [1.5]},
        {"sampling": None},
        {"sampling": {"unknown": 1}},
        {"sampling": {"logit_bias": [1]}},
        {"sampling": {"stop_ids": 5}},
        {"sampling": {"temperature": "hot"}},
    ],
    ids=str,
)
def test_malformed_requests_are_refused(change: dict[str, Any]) -> None:
    message = {**generate_message("a", [1], Sampling(), ""), **change}
    with pytest.raises(CauserieError) as caught:
        read_generate(message)
    assert caught.value.code in ("CAU-3105", "CAU-3102")


@pytest.mark.parametrize(
    "value", [None, {}, {"request_id": "a", "ids": 3}, {"request_id": "a", "surprise": 1}], ids=str
)
def test_malformed_events_are_refused(value: Any) -> None:
    with pytest.raises(CauserieError):
        read_event(value)


def test_defaults_fill_what_a_message_leaves_out() -> None:
    assert read_sampling({}) == Sampling()
