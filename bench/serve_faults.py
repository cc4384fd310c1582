"""The long fault tests at full size: 100 rounds of kill -9, overload, a fault proxy before two replicas, a soak.

.venv/bin/python bench/serve_faults.py             # about ten minutes
.venv/bin/python bench/serve_faults.py --quick     # a minute
.venv/bin/python bench/serve_faults.py --only proxy

S1, S15, S16: ../docs/guides/api.md says what each is, and which test has it at small size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import httpx

from tests.serve.fault_proxy import FAULTS, fault_proxy
from tests.serve.test_faults import CHAT, QUESTION, TALK, acknowledged_writes, begin
from tests.serve.test_replicas import kept_talks, spoilt_requests


@contextmanager
def serving(home: Path, delay: float, answers: int = 64) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
    """A server's process, ended with the block."""
    process, url, headers = begin(home, delay, answers)
    try:
        yield process, url, headers
    finally:
        process.kill()
        process.wait()


def megabytes(process: subprocess.Popen[str]) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def percentile(values: list[float], share: float) -> float:
    """A percentile, in milliseconds."""
    return 1e3 * sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def offered(url: str, headers: dict[str, str], rate: float, seconds: float) -> dict[int, list[float]]:
    """Seconds of requests that come at a fixed rate, by status. Plain sockets: the client must not be what is slow."""
    took: dict[int, list[float]] = {}
    port, body = int(url.rpartition(":")[2]), json.dumps(QUESTION).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nApi-Key: {headers['api-key']}\r\n"
    asking = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    begun = time.perf_counter()

    async def one(at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        while idle and idle[-1][0].at_eof():  # the server closes connections that nobody uses
            idle.pop()[1].close()
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        sent = time.perf_counter()
        writer.write(asking)
        top = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(top.split(b"content-length: ")[1].split(b"\r\n")[0]))
        took.setdefault(int(top.split()[1]), []).append(time.perf_counter() - sent)
        idle.append((reader, writer))

    await asyncio.gather(*(one(begun + number / rate) for number in range(int(rate * seconds))))
    for _, writer in idle:
        writer.close()
    return took


def overload(seconds: float) -> None:
    """S1: eight answers at a time of 0.4 seconds, eight more may wait: it takes 20 requests a second; offered twice that
    (the queue is full all the time), then twenty times."""
    with tempfile.TemporaryDirectory() as home, serving(Path(home), 0.1, 16) as (process, url, headers):
        asyncio.run(offered(url, headers, 20, 2))
        before = megabytes(process)
        for times in (2, 20):
            took = asyncio.run(offered(url, headers, 20 * times, seconds))
            accepted, refused = took.pop(200), took.pop(503)
            assert not took, f"neither answered nor refused: {took.keys()}"
            print(
                f"S1 overload {times}x, {seconds:.0f} s: {len(accepted)} answered, p50 {percentile(accepted, 0.5):.0f}, "
                f"p99 {percentile(accepted, 0.99):.0f} ms; {len(refused)} refused with 503, "
                f"p50 {percentile(refused, 0.5):.1f}, p99 {percentile(refused, 0.99):.1f} ms (goal 50)"
            )
        print(f"S1 memory of the server: {megabytes(process) - before:+.1f} MB (goal < 20)")
        left = httpx.get(f"{url}/health").json()["answers"]
        print(f"S1 answers in hand afterwards: {left} (goal 0)")


def kills(rounds: int) -> None:
    """Acknowledged writes that a kill -9 loses."""
    with tempfile.TemporaryDirectory() as home:
        written, lost = acknowledged_writes(Path(home), rounds)
    print(f"kill -9, {rounds} rounds: {written} writes acknowledged, {lost} lost (goal 0)")


def proxied(each: int) -> None:
    """S15: plain answers, streams and writes through a proxy that spoils connections, before two replicas."""
    with (
        tempfile.TemporaryDirectory() as home,
        serving(Path(home), 0.002) as (_, first, headers),
        serving(Path(home), 0.002) as (_, second, _),
        fault_proxy([int(url.rpartition(":")[2]) for url in (first, second)]) as proxy,
    ):
        acknowledged: set[str] = set()
        for fault in FAULTS:
            proxy.fault = fault
            found: Counter[str] = spoilt_requests(f"http://127.0.0.1:{proxy.port}", headers, each, acknowledged)
            told = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
            print(f"S15 {fault}: {told}")
        until = time.monotonic() + 30
        while (left := [httpx.get(f"{url}/health").json()["answers"] for url in (first, second)]) != [0, 0]:
            if time.monotonic() > until:
                break
            time.sleep(0.1)
        lost = len(acknowledged - kept_talks(Path(home)))
        print(f"S15 answers in hand afterwards: {left} (goal 0, 0); {len(acknowledged)} writes, {lost} lost (goal 0)")


def soak(seconds: float) -> None:
    """S16: requests of every kind for a while: how much memory and how many files the process gains."""
    with tempfile.TemporaryDirectory() as home, serving(Path(home), 0.0) as (process, url, headers):
        figures, until, count = [], time.monotonic() + seconds, 0
        with httpx.Client(base_url=url, headers=headers, timeout=30) as http, ThreadPoolExecutor(4) as crowd:

            def work(_: int) -> None:
                http.post(CHAT, json=QUESTION)
                with http.stream("POST", CHAT, json=QUESTION | {"stream": True, "max_tokens": 50}) as answer:
                    answer.read()
                http.post(TALK, json={})
                http.post(CHAT, content=b"{")

            while time.monotonic() < until:
                list(crowd.map(work, range(40)))
                count += 160
                files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
                figures.append((time.monotonic(), megabytes(process), files))
    minutes = [next(size for at, size, _ in figures if at - figures[0][0] >= t) for t in range(0, int(seconds) - 5, 60)]
    print(f"S16 resident MB, minute by minute: {', '.join(f'{size:.1f}' for size in minutes)}")
    later = figures[len(figures) // 3 :]
    span = max(1e-9, (later[-1][0] - later[0][0]) / 60)
    print(
        f"S16 soak of {seconds:.0f} s, {count} requests: {later[0][1]:.0f} -> {later[-1][1]:.0f} MB, "
        f"{(later[-1][1] - later[0][1]) / span:+.2f} MB/min over the last two thirds (goal < 1), "
        f"files {later[0][2]} -> {later[-1][2]}"
    )


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["kills", "overload", "proxy", "soak"])
    parser.add_argument("--soak-seconds", type=float, help="default: 300, quick 20")
    options = parser.parse_args()
    quick = options.quick
    work = {
        "overload": lambda: overload(3 if quick else 15),
        "proxy": lambda: proxied(3 if quick else 15),
        "kills": lambda: kills(5 if quick else 100),
        "soak": lambda: soak(options.soak_seconds or (20 if quick else 300)),
    }
    for name, begin_work in work.items():
        if options.only in (None, name):
            begin_work()
            sys.stdout.flush()


if __name__ == "__main__":
    main()
