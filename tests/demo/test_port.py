"""The demo serves on the next free port rather than failing after minutes of work."""

from __future__ import annotations

import socket

from causerie.demo.circle import free_port


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        found = free_port("127.0.0.1", taken)
        assert taken < found < taken + 20
    assert free_port("127.0.0.1", taken) == taken
    assert free_port("127.0.0.1", 0) == 0
