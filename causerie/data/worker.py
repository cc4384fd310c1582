"""The process that curates documents: `python -m causerie.data.worker`, spoken to over its standard streams.

Hostile pages can keep an HTML parser busy for ever, inside C code where no exception arrives. So documents are read
in a child: a CPU timer (SIGPROF, default action) ends it, and the parent starts another and counts the page.

First line in: `{"config": {...}, "runs": path or null}`; first line out: `{"ready": true}`. Then for each document a
line with its fields and `bytes`, followed by that many bytes; and a line out with the judged document.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

from causerie.data.config_json import config_from_json
from causerie.data.curate import curate
from causerie.data.decontaminate import load_runs
from causerie.data.filters import quality_rules
from causerie.data.language import identify
from causerie.data.pool import OUT_OF_MEMORY
from causerie.data.raw import RawDocument


def serve(lines: IO[bytes], answers: IO[bytes]) -> None:
    """Curate documents until the input ends."""
    start = json.loads(lines.readline())
    config = config_from_json(start["config"])
    runs = load_runs(Path(start["runs"])) if start["runs"] else {}
    rules = quality_rules(config)
    _answer(answers, {"ready": True})
    limited = False
    while line := lines.readline():
        head = json.loads(line)
        body = lines.read(head.pop("bytes"))
        _warm(head["kind"])
        if not limited and head["kind"] == "html":
            limited = _limit_memory(config.page_memory_mb)
        signal.setitimer(signal.ITIMER_PROF, config.page_seconds)
        raw = RawDocument(**head, body=body)
        try:
            row = curate(raw, config, runs, rules)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # what is left of the heap would fail the next page
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(answers, row.as_dict())


def _warm(kind: str) -> None:
    """Load what reading needs before the timer starts, so that no document is charged for it."""
    identify("warm")
    if kind == "html":
        import trafilatura  # noqa: F401


def _limit_memory(megabytes: int) -> bool:
    """Let this process map so much more memory than it has now; what asks for more gets a MemoryError."""
    import resource

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = mapped + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))
    return True


def _answer(answers: IO[bytes], value: dict[str, Any]) -> None:
    answers.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
    answers.flush()


def main() -> None:
    """Speak on the standard streams; the parent's end of input is the only way out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
