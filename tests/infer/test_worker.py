"""The worker's side of the protocol, in a thread with a real engine."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

import pytest

from causerie.core import CauserieError
from causerie.infer import Engine
from causerie.infer.protocol import FrameBuffer, encode_frame, generate_message
from causerie.infer.protocol import Sampling as Settings
from causerie.infer.worker import Closed, Worker
from causerie.model import Transformer


def converse(model: Transformer, *frames: bytes) -> tuple[list[dict[str, Any]], BaseException]:
    """Send frames to a worker, close the socket for writing, and return its messages and why it ended."""
    ours, theirs = socket.socketpair()
    endings: list[BaseException] = []

    def serve() -> None:
        with theirs:
            try:
                Worker(theirs).serve(Engine(model))
            except (Closed, CauserieError) as error:
                endings.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    buffer, found = FrameBuffer(), []
    with ours:
        ours.sendall(b"".join(frames))
        ours.shutdown(socket.SHUT_WR)
        while data := ours.recv(1 << 16):
            found += buffer.push(data)
    thread.join()
    return found, endings[0]


def test_unknown_and_impossible_requests_are_refused_one_by_one(qwen: Transformer) -> None:
    requests = [
        {"type": "dance", "id": "a"},
        generate_message("b", [], Settings(), ""),
        {"type": "generate", "id": "c", "prompt_ids": [1], "sampling": {"top_k": -1}},
        {"type": "cancel", "id": "nobody"},
    ]
    found, ending = converse(qwen, *map(encode_frame, requests))
    assert [(item["type"], item["id"], item["error"]["code"]) for item in found] == [
        ("refused", "a", "CAU-3105"),
        ("refused", "b", "CAU-3101"),
        ("refused", "c", "CAU-3102"),
    ]
    assert isinstance(ending, Closed)


@pytest.mark.parametrize("nonsense", [struct.pack(">I", 2**31), struct.pack(">I", 5) + b"hello"], ids=["long", "json"])
def test_a_broken_stream_ends_the_worker(qwen: Transformer, nonsense: bytes) -> None:
    found, ending = converse(qwen, nonsense)
    assert found == []
    assert isinstance(ending, CauserieError)
    assert ending.code == "CAU-3105"


def test_stop_ends_the_worker(qwen: Transformer) -> None:
    assert isinstance(converse(qwen, encode_frame({"type": "stop"}))[1], Closed)
