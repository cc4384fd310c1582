"""The engine's own process: `python -m causerie.infer.worker --fd N`.

Started by `EngineClient`, which hands it one end of a socket pair and, as the first message, `load` with the model.
A spare one waits for that message with everything imported. Frames are those of `protocol`.
The process ends when the other end closes, so it never outlives the server, however that died.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causerie.core import CauserieError
from causerie.infer.config import EngineConfig
from causerie.infer.protocol import (
    PROTOCOL,
    FrameBuffer,
    encode_frame,
    event_dict,
    malformed,
    read_embed,
    read_generate,
)

if TYPE_CHECKING:
    from causerie.infer.engine import Engine


STATS_SECONDS = 0.25
"""How often a busy worker tells its statistics; one that becomes idle tells them at once."""


class Closed(Exception):
    """The other end of the socket is gone, or asked to stop."""


class Worker:
    """Carries messages between the socket and an engine."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = FrameBuffer()
        self.waiting: list[dict[str, Any]] = []

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; blocks while the other end does not read.

        Raises:
            Closed: when it is gone.
        """
        try:
            self.connection.sendall(encode_frame(message))
        except OSError as error:
            raise Closed from error

    def receive_one(self) -> dict[str, Any]:
        """The next message, waiting for it; messages that came with it are kept.

        Raises:
            Closed: when the other end is gone.
        """
        while not self.waiting:
            self.waiting += self._read()
        return self.waiting.pop(0)

    def serve(self, engine: Engine) -> None:
        """Step the engine while it has work, and wait for messages while it has none.

        Raises:
            Closed: when the other end is gone or asked to stop.
        """
        told = 0.0
        while True:
            self._receive(engine, wait=not engine.has_work)
            events = engine.step() if engine.has_work else []
            now = time.monotonic()
            due = now - told >= STATS_SECONDS or not engine.has_work
            if events or due:
                message: dict[str, Any] = {"type": "events", "events": [event_dict(event) for event in events]}
                if due:
                    told, message["stats"] = now, engine.stats
                self.send(message)

    def _receive(self, engine: Engine, wait: bool) -> None:
        while self.waiting:
            self._handle(engine, self.waiting.pop(0))
            wait = False
        while select.select([self.connection], [], [], None if wait else 0)[0]:
            wait = False
            for message in self._read():
                self._handle(engine, message)

    def _read(self) -> list[dict[str, Any]]:
        try:
            data = self.connection.recv(1 << 16)
        except OSError as error:
            raise Closed from error
        if not data:
            raise Closed
        return self.buffer.push(data)

    def _handle(self, engine: Engine, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "stop":
            raise Closed
        if kind == "cancel":
            engine.cancel(str(message.get("id")))
            return
        try:
            if kind == "generate":
                request_id, prompt_ids, sampling, salt, priority = read_generate(message)
                engine.add(request_id, prompt_ids, sampling, salt=salt, priority=priority)
            elif kind == "embed":
                request_id, ids, pooling, adapter, salt = read_embed(message)
                engine.add_embedding(request_id, ids, pooling, adapter=adapter, salt=salt)
            else:
                self._call(engine, kind, message)
                self.send({"type": "reply", "id": message.get("id")})
        except CauserieError as error:
            self.send({"type": "refused", "id": message.get("id"), "error": error.as_dict()})

    def _call(self, engine: Engine, kind: str, message: Mapping[str, Any]) -> None:
        name, folder = str(message.get("name", "")), Path(str(message.get("folder", "")))
        if kind == "load_adapter":
            engine.load_adapter(name, folder)
        elif kind == "unload_adapter":
            engine.unload_adapter(name)
        elif kind == "update_weights":
            engine.update_weights(folder)
        else:
            raise malformed(f"a message of unknown type {kind[:40]!r}")


def load_engine(worker: Worker, order: Mapping[str, Any]) -> Engine:
    """Load the model of a `load` message and tell the other end what it is.

    Raises:
        CauserieError: CAU-3105 for a malformed message, else what the engine says.
    """
    started = time.monotonic()
    import torch

    from causerie.infer.engine import Engine
    from causerie.infer.loading import SMALL_MODEL

    settings = order.get("config", {})
    if order["type"] != "load" or not isinstance(order.get("model"), str) or not isinstance(settings, dict):
        raise malformed("the first message is not a load with a model and a config")
    model, config = Path(order["model"]), EngineConfig(**settings)
    engine = Engine(model, config, on_admit=lambda ids: worker.send({"type": "admitted", "ids": ids}))
    # A small model's operators are too short to be shared: a second thread slows them, tenfold on a busy machine.
    threads = config.threads or (1 if config.device == "cpu" and engine.shape.n_params < SMALL_MODEL else None)
    if threads:
        torch.set_num_threads(threads)
    info = {**engine.info, "model": str(model), "pid": os.getpid(), "load_seconds": time.monotonic() - started}
    worker.send({"type": "info", "protocol": PROTOCOL, "info": info})
    return engine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker; 0 when the other end closed, 1 after an error that it was told of as `fatal`."""
    parser = argparse.ArgumentParser(prog="causerie.infer.worker")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of a connected stream socket")
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the server closes the socket when done
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=given.fd) as connection:
        worker = Worker(connection)
        try:
            import causerie.infer.engine  # noqa: F401 - a spare worker is to have done this before its model is named

            worker.serve(load_engine(worker, worker.receive_one()))
        except Closed:
            return 0
        except CauserieError as error:
            return _fatal(worker, error)
        except Exception as error:
            _fatal(worker, CauserieError("CAU-3106", f"{type(error).__name__}: {error}"))
            raise
    return 0


def _fatal(worker: Worker, error: CauserieError) -> int:
    try:
        worker.send({"type": "fatal", "error": error.as_dict()})
    except Closed:
        return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
