"""The engine's process as the server holds it: started, read, written to, let go. Free of torch."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from causerie.core import CauserieError
from causerie.infer.config import EngineConfig
from causerie.infer.protocol import PROTOCOL, decode_message, encode_frame, frame_length, malformed

WORKER: Final = ("-m", "causerie.infer.worker")
"""What Python is started with."""
ENVIRONMENT: Final = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "10000",
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""What the worker is started with, where the caller's environment does not say otherwise.

Threads that wait spin for some tens of microseconds, as long as the next product is away, and then sleep: sleeping at
once costs a wake-up for each of a step's hundred products, spinning on slows a busy machine tenfold. Memory of
a step's tensors stays with the process: the system would clear it anew for every step. Large tensors lie in large pages
where the system grants them: they are read some 5 % sooner.
"""
START_SECONDS: Final = 300.0
"""How long a worker may take to load its model."""


@dataclass(eq=False)
class WorkerProcess:
    """A running worker and its socket."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    info: dict[str, Any]
    """What it told of its engine."""

    async def read(self) -> dict[str, Any]:
        """The next message; EOFError when the worker is gone, CAU-3105 when it breaks the protocol."""
        header = await self.reader.readexactly(4)
        return decode_message(await self.reader.readexactly(frame_length(header)))

    async def discard(self) -> None:
        """Let go of the worker: close its socket, which ends it, and kill it when it does not end."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
        for _ in range(100):
            if self.process.poll() is not None:
                return
            await asyncio.sleep(0.02)
        self.process.kill()
        await asyncio.to_thread(self.process.wait)


async def spawn() -> WorkerProcess:
    """Start a worker that has no model yet: it imports what it needs and waits for `load`."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *WORKER, "--fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**ENVIRONMENT, **os.environ},
        )
    return WorkerProcess(process, *await asyncio.open_connection(sock=ours), {})


async def load(worker: WorkerProcess, model: Path, config: EngineConfig) -> WorkerProcess:
    """Have a worker load its model, and wait until it has; a worker that cannot is discarded.

    Raises:
        CauserieError: what the worker said, or CAU-3106 when it ended without a word.
    """
    order = {"type": "load", "model": str(model.absolute()), "config": asdict(config)}
    try:
        worker.writer.write(encode_frame(order))
        message = await asyncio.wait_for(worker.read(), START_SECONDS)
        if message["type"] == "fatal":
            raise told(message.get("error"))
        if message["type"] != "info" or message.get("protocol") != PROTOCOL:
            raise malformed("the worker's first message is not an info of our version")
        worker.info = dict(message["info"])
    except (EOFError, OSError, TimeoutError) as error:
        await worker.discard()
        raise _no_start(model, worker.process) from error
    except BaseException:
        await worker.discard()
        raise
    return worker


def told(value: Any) -> CauserieError:
    """The error in a worker's message."""
    if not isinstance(value, dict):
        return malformed("an error that is not an object")
    parts = {name: str(value.get(name, "")) for name in ("code", "cause", "where", "fix")}
    return CauserieError(parts["code"], parts["cause"], where=parts["where"], fix=parts["fix"])


def _no_start(model: Path, process: subprocess.Popen[bytes]) -> CauserieError:
    status = process.poll()
    how = "took too long to load" if status is None else f"ended with status {status} before its model was loaded"
    return CauserieError("CAU-3106", f"the engine's process {how}", where=str(model), fix="see the log on stderr")
