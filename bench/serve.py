"""What the server costs, with keys, scopes, quotas, metering and durable rows on, and the engine mocked.

Beside it, in the same run: the same answers from a bare Starlette application (no keys, no limits, no rows).

    .venv/bin/python bench/serve.py            # all of it, about three minutes
    .venv/bin/python bench/serve.py --quick    # seconds; figures are rough

CPU is that of the server's process, all threads, from the kernel's scheduler statistics; so a busy machine shows in
latencies, not in CPU. "durable": an acknowledged write is on the disk (SQLite, synchronous=FULL).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import wait
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TEXT = ["Bonjour !", "L'été est là.", "Quelle belle journée ! user assistant system"]


def serve(home: Path, bare: bool) -> None:
    """The server's process: tells its address and key on stdout, then answers until it is killed."""
    if bare:
        serve_bare()
        return
    from causerie.core import write_artifact
    from causerie.infer import Event, Sampling
    from causerie.serve import EnginePool, Gate, Limits, create_app, create_key, run_server
    from causerie.store import open_store
    from causerie.text import train_bpe

    tokenizer = train_bpe(TEXT * 3, 320)
    ids = tokenizer.encode("Quelle belle journée, " * 400)

    class Mock:
        def __init__(self) -> None:
            self.info = {"max_seq_len": 4096}

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        async def generate(self, prompt: list[int], sampling: Sampling, *, salt: str = "") -> AsyncIterator[Event]:
            pause = 3600.0 if sampling.seed == 1 else 0.0
            for number in range(1, sampling.max_tokens + 1):
                last = number == sampling.max_tokens
                logprobs = [-0.5] if sampling.logprobs else []
                yield Event("r", [ids[number % len(ids)]], logprobs, "length" if last else None, len(prompt), number)
                await asyncio.sleep(pause)

    with write_artifact(home, "model", "petit", "ab" * 32) as draft:
        tokenizer.save(draft.path)
    assert draft.artifact is not None
    folder = draft.artifact.path
    gate = Gate(max_answers=2_000, max_tokens=10**8, max_per_key=2_000, max_running=2_000)
    pool = EnginePool(lambda _folder: Mock(), gate=gate)  # type: ignore[arg-type,return-value]

    @asynccontextmanager
    async def loading(_app: Any) -> AsyncIterator[None]:
        await pool.load("petit", folder, 1)
        yield

    with open_store(home) as store:
        limits = Limits(10**9, 10**11, 10**6)
        _, key = create_key(store, "bench", scopes=("inference", "platform"), project="bench", limits=limits)
        app = create_app(pool, store=store, keys_required=True, lifespans=[loading], workspace=home)
        run_server(app, "127.0.0.1", 0, on_ready=lambda url: print(json.dumps([url, key]), flush=True))


def serve_bare() -> None:
    """The same answers from Starlette alone."""
    import socket

    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def chat(request: Request) -> Response:
        asked = await request.json()
        top = {"id": "x", "created": 1, "model": "petit"}
        if not asked.get("stream"):
            return JSONResponse(top | {"choices": [{"message": {"role": "assistant", "content": "Quelle"}}]})

        async def events() -> AsyncIterator[bytes]:
            for _ in range(asked["max_tokens"]):
                part = top | {"choices": [{"index": 0, "delta": {"content": "Quelle"}}]}
                yield b"data: " + json.dumps(part).encode() + b"\n\n"
                await asyncio.sleep(0)
            yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    listener = socket.socket(
        socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # so asyncio turns Nagle's wait off
    listener.bind(("127.0.0.1", 0))
    listener.listen(2_048)
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_level="error", access_log=False)
    print(json.dumps([f"http://127.0.0.1:{listener.getsockname()[1]}", "x"]), flush=True)
    uvicorn.Server(config).run(sockets=[listener])


class Subject:
    """A server's process."""

    def __init__(self, bare: bool) -> None:
        self.home = tempfile.TemporaryDirectory()
        begun = time.monotonic()
        command = [sys.executable, __file__, "--serve", self.home.name, *(["--bare"] if bare else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url, self.key = json.loads(self.process.stdout.readline())
        self.port = int(self.url.rpartition(":")[2])
        self.cold = time.monotonic() - begun

    def cpu(self) -> float:
        """Seconds of CPU that all its threads have had."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> float:
        """Resident MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self.home.cleanup()

    def request(self, tokens: int, stream: bool, seed: int = 0) -> bytes:
        """A request's bytes."""
        message = {"role": "user", "content": "Quelle belle journée !"}
        body = {"model": "petit", "messages": [message], "max_tokens": tokens, "stream": stream, "seed": seed}
        data = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
        )
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def answer(reader: asyncio.StreamReader) -> bytes:
    """One response, whole; it must be 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head[:20], head
    lower = head.lower()
    if b"content-length: " in lower:
        return await reader.readexactly(int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]))
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        body += await reader.read(65_536)
    return body


async def closed_loop(subject: Subject, connections: int, each: int, tokens: int, stream: bool) -> list[float]:
    """Seconds of every request, of clients that each ask again when they are answered."""
    took: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
        asking = subject.request(tokens, stream)
        for _ in range(each):
            begun = time.perf_counter()
            writer.write(asking)
            await answer(reader)
            took.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return took


async def open_loop(subject: Subject, rate: float, count: int) -> list[float]:
    """Seconds of requests that come at a fixed rate, whatever the answers do."""
    took: list[float] = []
    idle: list[Any] = [await asyncio.open_connection("127.0.0.1", subject.port) for _ in range(128)]
    asking = subject.request(1, False)
    begin = time.perf_counter()

    async def one(at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        while not idle:
            await asyncio.sleep(0.001)
        pair = idle.pop()
        pair[1].write(asking)
        await answer(pair[0])
        took.append(time.perf_counter() - at)
        idle.append(pair)

    await asyncio.gather(*(one(begin + number / rate) for number in range(count)))
    return took


async def hold_open(subject: Subject, count: int) -> float:
    """MB of the server with so many streams open, each past its first event."""
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
        writer.write(subject.request(100, True, seed=1))
        await reader.readuntil(b"data: ")
        writers.append(writer)
    await asyncio.sleep(0.5)
    memory = subject.memory()
    for writer in writers:
        writer.close()
    return memory


def durable_writes(seconds: float) -> float:
    """Acknowledged durable writes/s of 64 callers that each wait for their row."""
    from sqlalchemy import insert

    from causerie.store import new_id, now, open_store, users

    with tempfile.TemporaryDirectory() as home, open_store(Path(home)) as store:
        done, until = 0, time.monotonic() + seconds
        statement = insert(users)
        pending = set()
        while time.monotonic() < until:
            while len(pending) < 64:
                row = {"id": new_id("u"), "pseudonym": "p", "role": "user", "created": now()}
                pending.add(store.submit((statement, [row])))
            finished, pending = wait(pending, return_when="FIRST_COMPLETED")
            done += sum(future.result() == 1 for future in finished)
        wait(pending)
        return done / seconds


def percentile(values: list[float], share: float) -> float:
    """A percentile."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--only", choices=["requests", "streams", "latency", "memory", "writes"])
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.bare)
        return
    wanted = [options.only] if options.only else ["requests", "streams", "latency", "memory", "writes"]
    with contextlib.closing(Subject(False)) as ours, contextlib.closing(Subject(True)) as bare:
        measure(ours, bare, wanted, options.quick)
    if "writes" in wanted:
        print(f"durable writes/s, 64 callers: {durable_writes(1 if options.quick else 5):.0f} (goal 2000)")
    print("again: .venv/bin/python bench/serve.py")


def measure(ours: Subject, bare: Subject, wanted: list[str], quick: bool) -> None:
    """Everything that is asked of a running server, beside the bare one."""
    rounds, each, tokens = (1, 60, 100) if quick else (5, 250, 400)
    print(f"cold start to the first answer: {ours.cold:.2f} s (goal 1.0); memory then {ours.memory():.0f} MB")
    if "requests" in wanted:
        report(
            "per request, one token",
            compare(ours, bare, rounds, lambda s: closed_loop(s, 8, each, 1, False), 8 * each),
            450,
        )
    if "streams" in wanted:
        streams = max(2, each // 25)
        report(
            "per SSE event",
            compare(ours, bare, rounds, lambda s: closed_loop(s, 8, streams, tokens, True), 8 * streams * tokens),
            45,
        )
    if "latency" in wanted:
        capacity = 1e6 / statistics.median(costs(ours, lambda s: closed_loop(s, 8, each, 1, False), 8 * each, 1))
        for name, subject in (("ours", ours), ("bare", bare)):
            took = asyncio.run(open_loop(subject, capacity / 2, each * 8))
            print(
                f"latency at half load ({capacity / 2:.0f}/s), {name}: "
                f"p50 {1e3 * percentile(took, 0.5):.1f} ms, p99 {1e3 * percentile(took, 0.99):.1f} ms (goal p99 +10)"
            )
    if "memory" in wanted:
        count = 100 if quick else 1_000
        print(f"{count} open streams: {asyncio.run(hold_open(ours, count)):.0f} MB (goal 150)")


def costs(subject: Subject, work: Any, units: int, rounds: int) -> list[float]:
    """Microseconds of CPU for a unit, once for each round."""
    found = []
    for _ in range(rounds):
        before = subject.cpu()
        asyncio.run(work(subject))
        found.append((subject.cpu() - before) / units * 1e6)
    return found


def compare(ours: Subject, bare: Subject, rounds: int, work: Any, units: int) -> tuple[float, float]:
    """Medians of both, their rounds in turn, after one that is not counted."""
    for subject in (ours, bare):
        asyncio.run(work(subject))
    pairs = [(costs(ours, work, units, 1)[0], costs(bare, work, units, 1)[0]) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def report(what: str, found: tuple[float, float], goal: float) -> None:
    """Print a line."""
    mine, bare = found
    print(f"{what}: {mine:.0f} us of CPU (goal {goal:.0f}); bare Starlette {bare:.0f} us; ratio {mine / bare:.2f}")


if __name__ == "__main__":
    main()
