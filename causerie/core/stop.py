"""Stopping on request: SIGTERM and SIGINT ask long work to save its state and leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGTERM or SIGINT only sets a flag; a second one interrupts as usual.

    Yields:
        A function that says whether a stop was asked for. Work that sees True saves its state and raises
        `Stopped` (exit status 75). Outside the main thread the flag is simply never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for number in before:
        signal.signal(number, handle)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
