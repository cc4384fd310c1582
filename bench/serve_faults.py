"""The long fault tests at full size: 100 rounds of kill -9, a soak with its slopes.

.venv/bin/python bench/serve_faults.py             # about ten minutes
.venv/bin/python bench/serve_faults.py --quick     # a minute
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import httpx

from tests.serve.test_faults import CHAT, QUESTION, TALK, acknowledged_writes, begin


def soak(seconds: float) -> None:
    """Requests of every kind for a while: how much memory and how many files the process gains."""
    with tempfile.TemporaryDirectory() as home:
        process, url, headers = begin(Path(home), 0.0)
        figures, until = [], time.monotonic() + seconds
        with httpx.Client(base_url=url, headers=headers, timeout=30) as http, ThreadPoolExecutor(4) as crowd:

            def work(_: int) -> None:
                http.post(CHAT, json=QUESTION)
                with http.stream("POST", CHAT, json=QUESTION | {"stream": True, "max_tokens": 50}) as answer:
                    answer.read()
                http.post(TALK, json={})
                http.post(CHAT, content=b"{")

            while time.monotonic() < until:
                list(crowd.map(work, range(40)))
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
                figures.append((time.monotonic(), pages * 4096 / 2**20, files))
        process.kill()
        process.wait()
    later = figures[len(figures) // 3 :]
    minutes = max(1e-9, (later[-1][0] - later[0][0]) / 60)
    print(
        f"soak of {seconds:.0f} s: {(later[-1][1] - later[0][1]) / minutes:+.2f} MB/min (goal < 1), "
        f"files {later[0][2]} -> {later[-1][2]}"
    )


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rounds = 5 if options.quick else 100
    with tempfile.TemporaryDirectory() as home:
        written, lost = acknowledged_writes(Path(home), rounds)
    print(f"kill -9, {rounds} rounds: {written} writes acknowledged, {lost} lost")
    soak(20 if options.quick else 300)


if __name__ == "__main__":
    main()
