"""The worker's process: what it is started with, and how a start that fails is told."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest

from causerie.core import CauserieError
from causerie.infer import EngineConfig
from causerie.infer.process import ENVIRONMENT, load, spawn, told
from causerie.infer.protocol import PROTOCOL

ANSWERS = """
import argparse, os, socket
parser = argparse.ArgumentParser()
parser.add_argument("--fd", type=int)
from causerie.infer.protocol import FrameBuffer, encode_frame
connection = socket.socket(fileno=parser.parse_args().fd)
order = FrameBuffer().push(connection.recv(1 << 16))
REPLY
connection.recv(1)
"""


def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str) -> dict[str, Any]:
    """Load with a worker that is a script; what it told."""
    script = tmp_path / "worker.py"
    script.write_text(ANSWERS.replace("REPLY", reply))
    monkeypatch.setattr("causerie.infer.process.WORKER", (str(script),))

    async def main() -> dict[str, Any]:
        worker = await load(await spawn(), tmp_path, EngineConfig())
        await worker.discard()
        assert worker.process.poll() is not None
        return worker.info

    return asyncio.run(main())


TELLS = 'connection.sendall(encode_frame({"type": "info", "protocol": %d, "info": dict(os.environ)}))'


def test_threads_sleep_soon_and_memory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's own settings go before ours."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    seen = start(tmp_path, monkeypatch, TELLS % PROTOCOL)
    assert seen["GOMP_SPINCOUNT"] == "7"
    assert {name: seen[name] for name in ENVIRONMENT if name != "GOMP_SPINCOUNT"} == {
        name: value for name, value in ENVIRONMENT.items() if name != "GOMP_SPINCOUNT"
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's names")
def test_the_names_of_the_settings_are_known_to_the_system() -> None:
    """glibc has `mallopt`, and the settings are numbers that it can hold."""
    assert ctypes.CDLL(None).mallopt
    assert all(0 < int(value) < 2**31 for name, value in ENVIRONMENT.items() if name.startswith("MALLOC"))


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        ("raise SystemExit(3)", "CAU-3106", "status 3"),
        (TELLS % (PROTOCOL + 1), "CAU-3105", "not an info"),
        ('connection.sendall(encode_frame({"type": "events"}))', "CAU-3105", "not an info"),
        ('connection.sendall(encode_frame({"type": "fatal", "error": {"code": "CAU-3005"}}))', "CAU-3005", ""),
        ('connection.sendall(encode_frame({"type": "fatal", "error": 7}))', "CAU-3105", "not an object"),
        ('connection.sendall(b"\\0\\0")', "CAU-3106", "before its model was loaded"),
    ],
    ids=["dies", "another version", "no info", "fatal", "fatal without words", "half a frame"],
)
def test_a_start_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str, code: str, words: str
) -> None:
    if reply.endswith('"\\0\\0")'):
        reply += "\nraise SystemExit(0)"
    with pytest.raises(CauserieError) as caught:
        start(tmp_path, monkeypatch, reply)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_worker_too_slow_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causerie.infer.process.START_SECONDS", 0.5)
    with pytest.raises(CauserieError) as caught:
        start(tmp_path, monkeypatch, "pass")
    assert caught.value.code == "CAU-3106"


def test_the_workers_words_become_an_error() -> None:
    error = told({"code": "CAU-3110", "cause": "why", "where": "here", "fix": "so", "more": 1})
    assert (error.code, error.cause, error.where, error.fix) == ("CAU-3110", "why", "here", "so")
