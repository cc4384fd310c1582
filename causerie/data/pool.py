"""Curating processes, fed batch by batch; results come back in the order of the batches."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import causerie
from causerie.data.config import DataBuildConfig
from causerie.data.curate import Judged, unread
from causerie.data.errors import data_error
from causerie.data.quarantine import Quarantine
from causerie.data.raw import RawDocument

OUT_OF_MEMORY: Final = 77
"""Exit status of a worker whose page needed more memory than it may take."""
Batch = tuple[str, list[RawDocument]]
"""A batch's name, and its documents."""


class Worker:
    """One curating process; a document that ends it is counted and put into quarantine, and the process replaced."""

    def __init__(self, config: DataBuildConfig, runs: Path | None, quarantine: Quarantine | None = None) -> None:
        self._quarantine = quarantine
        plain = {**asdict(config), "out": None, "decontaminate": [], "after": []}
        self._start = json.dumps({"config": plain, "runs": str(runs) if runs else None}, default=str) + "\n"
        self._process: subprocess.Popen[bytes] | None = None

    def judge(self, raw: RawDocument) -> Judged:
        """The judged document; "too_slow" or "crashed" when reading it ended the process."""
        if raw.problem:
            return unread(raw)
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        head = {**vars(raw), "bytes": len(raw.body)}
        del head["body"]
        try:
            process.stdin.write(json.dumps(head).encode() + b"\n" + raw.body)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line.endswith(b"\n"):
            return Judged(**json.loads(line))
        self.close()
        rules = {-signal.SIGPROF: "too_slow", OUT_OF_MEMORY: "too_much_memory"}
        rule, note = rules.get(process.returncode, "crashed"), f"exit status {process.returncode}"
        if self._quarantine is not None:
            self._quarantine.add(raw, rule, note)
        return unread(raw, rule, note)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            root = str(Path(causerie.__file__).parents[1])
            path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "causerie.data.worker"]
            # a group of its own: Ctrl-C is for the parent, which saves what is done and closes the workers' input
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, process_group=0
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(self._start.encode())
            self._process.stdin.flush()
            if not self._process.stdout.readline():
                self.close()
                cause, where = "it ended before its first document", "python -m causerie.data.worker"
                raise data_error("CAU-2006", cause, where=where, fix="run `causerie doctor`")
        return self._process

    def close(self) -> None:
        """End the process, if any."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def judge_batches(
    batches: Iterable[Batch],
    config: DataBuildConfig,
    runs: Path | None,
    workers: int,
    quarantine: Quarantine | None = None,
) -> Iterator[tuple[str, list[Judged]]]:
    """Curate batches in `workers` processes; yields (name, rows) in the order given, few batches ahead."""
    free: SimpleQueue[Worker] = SimpleQueue()
    crew = [Worker(config, runs, quarantine) for _ in range(workers)]
    for worker in crew:
        free.put(worker)

    def work(batch: Batch) -> tuple[str, list[Judged]]:
        worker = free.get()
        try:
            return batch[0], [worker.judge(raw) for raw in batch[1]]
        finally:
            free.put(worker)

    waiting: deque[Future[Any]] = deque()
    try:
        with ThreadPoolExecutor(workers, "curate") as threads:
            try:
                for batch in batches:
                    waiting.append(threads.submit(work, batch))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                threads.shutdown(wait=True, cancel_futures=True)
    finally:
        for worker in crew:
            worker.close()
