"""Run folders: one owner, readable while they work, honest about how they ended."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from causerie.core import CauserieError, Finding, Stopped, graceful_stop, open_run, read_events, read_run, seed_for
from causerie.core.run import is_owned

KEY = "a" * 64


def test_events_are_kept_in_order_and_appended_on_resume(workspace: Path) -> None:
    with open_run(workspace, "train", "x", KEY, {"lr": 0.1}) as run:
        run.log("step", step=1, loss=2.5)
        folder = run.path
    with open_run(workspace, "train", "x", KEY, {"lr": 0.1}) as run:
        run.log("step", step=2, loss=2.25)
        run.result["loss"] = 2.25
    assert [e["step"] for e in read_events(folder)] == [1, 2]
    assert [e["step"] for e in read_events(folder, after=1)] == [2]
    state = read_run(folder)
    assert state["status"] == "done"
    assert state["result"] == {"loss": 2.25}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Finding("no"), "refused"),
        (Stopped("later"), "stopped"),
        (ValueError("broken"), "failed"),
        (CauserieError("CAU-1001", "cause", where="here", fix="mend"), "failed"),
    ],
)
def test_the_ending_is_recorded(workspace: Path, error: Exception, status: str) -> None:
    with pytest.raises(type(error)), open_run(workspace, "k", "n", KEY, {}):
        raise error
    state = read_run(workspace / "runs" / "k-n-aaaaaaaa")
    assert state["status"] == status
    if isinstance(error, CauserieError):
        assert state["error"] == {"code": "CAU-1001", "cause": "cause", "where": "here", "fix": "mend"}


HOLDER = """
import sys, time
from pathlib import Path
from causerie.core import open_run
with open_run(Path(sys.argv[1]), "k", "n", "a" * 64, {}):
    print("owned", flush=True)
    time.sleep(60)
"""


def test_a_second_owner_is_refused_and_a_dead_one_reads_as_stopped(workspace: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(workspace)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "owned\n"
    folder = workspace / "runs" / "k-n-aaaaaaaa"
    assert read_run(folder)["status"] == "running"
    with pytest.raises(CauserieError, match=str(holder.pid)) as caught, open_run(workspace, "k", "n", KEY, {}):
        pass
    assert caught.value.code == "CAU-1004"
    holder.kill()
    holder.wait()
    assert read_run(folder)["status"] == "stopped"


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), graceful_stop() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_seeds_are_stable_and_distinct() -> None:
    assert seed_for(0, "data", 1) == seed_for(0, "data", 1)
    assert len({seed_for(root, name) for root in range(10) for name in ("a", "b", "ab")}) == 30


def test_half_a_line_of_a_killed_owner_does_not_spoil_the_next(workspace: Path) -> None:
    with open_run(workspace, "k", "n", KEY, {}) as run:
        run.log("step", step=1)
        events = run.path / "events.jsonl"
    with open(events, "ab") as file:
        file.write('{"event": "step", "text": "é'.encode()[:-1])
    assert [e["step"] for e in read_events(run.path)] == [1]
    with open_run(workspace, "k", "n", KEY, {}) as run:
        run.log("step", step=2)
    assert [e["step"] for e in read_events(run.path)] == [1, 2]


def test_readers_do_not_take_each_other_for_owners(workspace: Path) -> None:
    with open_run(workspace, "k", "n", KEY, {}) as run:
        assert is_owned(run.path)
    with open(run.path / "lock", "a+", encoding="utf-8") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # what `is_owned` of another process holds for a moment
        assert not is_owned(run.path)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "3", '{"id": "x", "kind": "k", "name": "n", "status": 4, "updated": 1}']
)
def test_a_state_that_is_none_is_told(workspace: Path, content: str) -> None:
    (workspace / "run.json").write_text(content)
    with pytest.raises(CauserieError) as caught:
        read_run(workspace)
    assert (caught.value.code, caught.value.where) == ("CAU-1012", str(workspace / "run.json"))


@pytest.mark.parametrize("line", [b"{broken", b"[1]", b"\xff\xfe", b'{"a": "' + "é".encode("latin-1") + b'"}'])
def test_a_broken_event_is_named_by_its_line(workspace: Path, line: bytes) -> None:
    with open_run(workspace, "k", "n", KEY, {}) as run:
        run.log("step", step=1)
    with open(run.path / "events.jsonl", "ab") as events:
        events.write(line + b"\n")
    with pytest.raises(CauserieError) as caught:
        read_events(run.path)
    assert caught.value.code == "CAU-1006"
    assert caught.value.where.endswith("events.jsonl:2")
    with pytest.raises(CauserieError) as later:
        read_events(run.path, after=1)
    assert later.value.where == caught.value.where


def test_looking_at_a_run_writes_nothing(workspace: Path) -> None:
    """A run of another user: its folder may be read and not written, and its dead owner is seen all the same."""
    with open_run(workspace, "k", "n", KEY, {}) as run:
        run.write_status("running")
        state = (run.path / "run.json").read_bytes()
    (run.path / "run.json").write_bytes(state)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.path.iterdir())
    assert read_run(run.path)["status"] == "stopped"
    (run.path / "lock").unlink()
    assert read_run(run.path)["status"] == "stopped"
    assert sorted(path.name for path in run.path.iterdir()) == [name for name, _ in before if name != "lock"]


def test_a_line_that_a_killed_owner_left_half_written_is_cut_off(workspace: Path) -> None:
    with open_run(workspace, "train", "m", "a" * 64, {}) as made:
        made.log("step", step=1)
    with open(made.path / "events.jsonl", "ab") as file:
        file.write(b'{"event": "step", "st')
    assert [event["step"] for event in read_events(made.path)] == [1]  # a reader leaves it out
    with open_run(workspace, "train", "m", "a" * 64, {}) as again:
        again.log("step", step=2)
    assert [event["step"] for event in read_events(made.path)] == [1, 2]
