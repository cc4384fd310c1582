"""What the store promises: durable, concurrent, and clear when the database refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from causerie.core import CauserieError
from causerie.store import Store, check_text, new_id, now, open_store, users
from causerie.store.errors import ERRORS
from causerie.store.store import FILE


def person(identifier: str, **values: Any) -> dict[str, Any]:
    return {"id": identifier, "pseudonym": "p", "role": "user", "created": now(), **values}


def test_written_rows_are_read_back(store: Store) -> None:
    assert store.write(insert(users).values(person("u1")), insert(users).values(person("u2"))) == 2
    assert [row.id for row in store.read(select(users).order_by(users.c.id))] == ["u1", "u2"]
    assert store.write(update(users).values(role="admin")) == 2
    found = store.first(select(users).where(users.c.id == "u2"))
    assert found is not None
    assert found.role == "admin"
    assert store.first(select(users).where(users.c.id == "nobody")) is None


def test_one_call_is_one_transaction(store: Store) -> None:
    with pytest.raises(CauserieError) as caught:
        store.write(insert(users).values(person("u1")), insert(users).values(person("u1")))
    assert caught.value.code == "CAU-1109"
    assert store.read(select(users)) == []


def test_add_passes_over_rows_that_are_there(store: Store) -> None:
    assert store.add(users, [person("u1"), person("u2")]) == 2
    assert store.add(users, [person("u2", role="other"), person("u3")]) == 1
    roles = dict(store.read(select(users.c.id, users.c.role)))  # type: ignore[arg-type]
    assert roles == {"u1": "user", "u2": "user", "u3": "user"}
    assert store.add(users, []) == 0


def test_transact_sees_its_own_writes_and_undoes_all_on_failure(store: Store) -> None:
    def work(connection: Connection) -> int:
        connection.execute(insert(users).values(person("u1")))
        return int(connection.execute(select(func.count()).select_from(users)).scalar_one())

    def broken(connection: Connection) -> None:
        connection.execute(insert(users).values(person("u2")))
        raise KeyError("mine")

    assert store.transact(work) == 1
    with pytest.raises(KeyError, match="mine"):
        store.transact(broken)
    assert len(store.read(select(users))) == 1


def test_a_bad_write_in_a_group_does_not_harm_the_others(store: Store) -> None:
    """Writes queued together share a commit; a duplicate key and an unknown table fail alone."""
    gate = threading.Event()
    first = store.submit_work(lambda connection: gate.wait(60))
    good = [store.submit(insert(users).values(person(f"u{number}"))) for number in range(20)]
    duplicate = store.submit(insert(users).values(person("u3")))
    unknown = store.submit(text("INSERT INTO nowhere VALUES (1)"))
    gate.set()
    assert first.result() is True
    assert [future.result() for future in good] == [1] * 20
    for future, code in ((duplicate, "CAU-1109"), (unknown, "CAU-1111")):
        with pytest.raises(CauserieError) as caught:
            future.result()
        assert caught.value.code == code
    assert len(store.read(select(users))) == 20


def test_groups_share_commits(store: Store) -> None:
    """Twenty threads write; far fewer commits than writes are made."""
    commits = []
    from sqlalchemy import event

    event.listen(store.engine, "commit", lambda connection: commits.append(1))

    def client(name: int) -> None:
        for number in range(10):
            store.write(insert(users).values(person(f"{name}-{number}")))

    threads = [threading.Thread(target=client, args=(name,)) for name in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read(select(users))) == 200
    assert len(commits) <= 100


def test_asynchronous_code_can_wait_without_blocking(store: Store) -> None:
    async def main() -> list[int]:
        futures = [store.submit(insert(users).values(person(f"u{number}"))) for number in range(5)]
        return await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))

    assert asyncio.run(main()) == [1] * 5


def test_a_caller_that_goes_away_does_not_stop_the_writer(store: Store) -> None:
    """A task that is cancelled while its write waits: the write is dropped or done, and the next ones go on."""
    gate = threading.Event()
    holding = store.submit_work(lambda connection: gate.wait(60))

    async def main() -> None:
        task = asyncio.ensure_future(asyncio.wrap_future(store.submit(insert(users).values(person("gone")))))
        await asyncio.sleep(0.02)
        task.cancel()

    asyncio.run(main())
    gate.set()
    assert holding.result() is True
    assert store.write(insert(users).values(person("here"))) == 1
    assert {row.id for row in store.read(select(users))} in ({"here"}, {"gone", "here"})


def test_full_durability_is_set(store: Store) -> None:
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


CLIENT = """
import sys
from pathlib import Path
from sqlalchemy import insert
from causerie.store import open_store, users
name, count = sys.argv[2], int(sys.argv[3])
with open_store(Path(sys.argv[1])) as store:
    for number in range(count):
        store.write(insert(users).values(id=f"{name}-{number}", pseudonym="p", role="user", created=0.0))
        print(f"{name}-{number}", flush=True)
"""


def start_client(workspace: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLIENT, str(workspace), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_open_migrate_and_write_at_once(workspace: Path) -> None:
    clients = [start_client(workspace, f"c{number}", 20) for number in range(3)]
    for client in clients:
        client.communicate(timeout=120)
        assert client.returncode == 0
    with open_store(workspace) as store:
        assert len(store.read(select(users))) == 60


def test_kill_9_loses_no_acknowledged_row(workspace: Path) -> None:
    acknowledged: set[str] = set()
    for number in range(3):
        client = start_client(workspace, f"round{number}", 100_000)
        assert client.stdout is not None
        acknowledged.add(client.stdout.readline().strip())
        time.sleep(0.15)
        os.kill(client.pid, signal.SIGKILL)
        acknowledged.update(line.strip() for line in client.stdout.read().split("\n") if line.strip())
        client.wait()
        client.stdout.close()
    with open_store(workspace) as store:
        present = {row.id for row in store.read(select(users.c.id))}
        assert store.engine.connect().exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert len(acknowledged) >= 3
    assert acknowledged <= present


def test_crash_before_the_commit_acknowledges_nothing_and_after_it_keeps_the_row(workspace: Path) -> None:
    for point, kept in (("store.before_commit", 0), ("store.after_commit", 1)):
        command = [sys.executable, "-c", CLIENT, str(workspace / point), "c", "1"]
        done = subprocess.run(
            command, env={**os.environ, "CAUSERIE_CRASH_AT": point}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
        with open_store(workspace / point) as store:
            assert len(store.read(select(users))) == kept


def code_of(workspace: Path) -> str:
    with pytest.raises(CauserieError) as caught:
        open_store(workspace)
    assert str(workspace) in caught.value.where
    assert caught.value.fix
    return caught.value.code


def test_a_file_that_is_no_database_is_refused(workspace: Path) -> None:
    (workspace / FILE).write_bytes(b"this is no database, only text\n" * 100)
    assert code_of(workspace) == "CAU-1105"


def test_a_database_of_a_newer_version_is_refused(workspace: Path) -> None:
    open_store(workspace).close()
    with sqlite3.connect(workspace / FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert code_of(workspace) == "CAU-1106"


def test_a_locked_database_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("causerie.store.store.BUSY_SECONDS", 0.2)
    with open_store(workspace) as store:
        holder = sqlite3.connect(workspace / FILE, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(CauserieError) as caught:
            store.write(insert(users).values(person("u1")))
        assert caught.value.code == "CAU-1102"
        holder.execute("ROLLBACK")
        holder.close()
        assert store.write(insert(users).values(person("u1"))) == 1


def test_a_full_database_is_named_and_goes_on_after_space_is_freed(store: Store) -> None:
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    long = person("u1", pseudonym="x" * 100_000)

    def cap(number: int) -> None:
        store.transact(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={number}") and None)

    cap(pages + 2)
    with pytest.raises(CauserieError) as caught:
        store.write(insert(users).values(long))
    assert caught.value.code == "CAU-1104"
    assert store.read(select(users)) == []
    cap(1_000_000)
    assert store.write(insert(users).values(long)) == 1


def test_a_read_only_database_is_named(store: Store) -> None:
    store.transact(lambda connection: connection.exec_driver_sql("PRAGMA query_only=ON") and None)
    with pytest.raises(CauserieError) as caught:
        store.write(insert(users).values(person("u1")))
    assert caught.value.code == "CAU-1103"


def test_a_workspace_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert code_of(tmp_path / "file") == "CAU-1101"


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite://", "sqlite:///:memory:", "oracle+nodriver://x/y", "mariadb+mariadbconnector://x/y"]
)
def test_a_url_that_cannot_be_used_is_refused(workspace: Path, url: str) -> None:
    with pytest.raises(CauserieError) as caught:
        open_store(workspace, url)
    assert caught.value.code == "CAU-1107"


def test_a_closed_store_refuses(workspace: Path) -> None:
    store = open_store(workspace)
    store.close()
    store.close()
    for call in (lambda: store.read(select(users)), lambda: store.write(insert(users).values(person("u1")))):
        with pytest.raises(CauserieError) as caught:
            call()
        assert caught.value.code == "CAU-1108"


def test_closing_commits_what_is_queued(workspace: Path) -> None:
    store = open_store(workspace)
    futures = [store.submit(insert(users).values(person(f"u{number}"))) for number in range(50)]
    store.close()
    assert [future.result(0) for future in futures] == [1] * 50


def test_ids_are_prefixed_random_and_url_safe() -> None:
    ids = {new_id("exp") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(name) == 20 and name.startswith("exp_") and name.isascii() for name in ids)


@pytest.mark.parametrize("value", ["a\0b", {"k": ["\0"]}, {"\0": 1}, "\ud800", [{"x": "ok"}, "\udfff"]])
def test_texts_that_no_database_holds_are_refused(value: Any) -> None:
    with pytest.raises(CauserieError) as caught:
        check_text(value, "comment")
    assert caught.value.code == "CAU-1110"
    assert caught.value.where.startswith("comment")
    check_text({"fine": ["é\n\u2028", 3, None]}, "comment")


def test_every_code_of_the_room_is_in_its_range() -> None:
    assert all(code.startswith("CAU-11") for code in ERRORS)
