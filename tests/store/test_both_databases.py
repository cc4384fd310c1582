"""The same promises on SQLite and on a real PostgreSQL server: what one database takes, the other takes too."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, event, func, insert, select, update
from sqlalchemy.exc import OperationalError

from causerie.core import CauserieError
from causerie.store import RowLog, Store, metadata, new_id, now, objects, usage, users
from causerie.store import row_log as row_log_module
from causerie.store.errors import ERRORS
from tests.postgresql import store_on
from tests.waiting import PATIENCE, wait_for


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An open store, the same for the tests of this module: each uses ids of its own."""
    place = tmp_path_factory.mktemp(str(request.param))
    with store_on(str(request.param), place) as opened:
        yield opened


@pytest.fixture
def mark() -> str:
    """A word that no other test's rows have."""
    return new_id("mark")


def person(mark: str, number: int | str = 0, **values: Any) -> dict[str, Any]:
    """A row of `users` of this test's own."""
    return {"id": f"{mark}-{number}", "pseudonym": mark, "role": "user", "created": now(), **values}


def thing(mark: str, body: Any, id: str = "x") -> dict[str, Any]:
    """A row of `objects`."""
    rank = time.time_ns()
    return {"kind": mark, "parent": "", "id": id, "owner": "o", "rank": rank, "created": now(), "body": body}


def count(store: Store, mark: str) -> int:
    """Rows of this test's in `users`."""
    return int(store.read(select(func.count()).select_from(users).where(users.c.pseudonym == mark))[0][0])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_a_document_comes_back_as_it_went_in(store: Store, value: Any) -> None:
    """JSON of any shape: emoji, bidi marks, empty keys, large numbers."""
    kind = new_id("doc")
    store.write(insert(objects).values(thing(kind, {"value": value})))
    found = store.first(select(objects.c.body).where(objects.c.kind == kind))
    assert found is not None
    assert found.body == {"value": value}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "é",
        "e\u0301",
        "🙂👩‍👩‍👧",
        "\u202eabc",
        "a\r\nb\tc",
        "'; DROP TABLE users; --",
        "%_\\",
        "\ufffd\uffff",
        "x" * 100_000,
    ],
)
def test_texts_are_kept_byte_for_byte(store: Store, mark: str, text: str) -> None:
    store.write(insert(users).values(person(mark, pseudonym=text)))
    found = store.first(select(users.c.pseudonym).where(users.c.id == f"{mark}-0"))
    assert found is not None
    assert found.pseudonym == text
    assert store.first(select(users.c.id).where(users.c.id == f"{mark}-0", users.c.pseudonym == text)) is not None


@pytest.mark.parametrize("moment", [0.0, 0.001, 1_700_000_000.123, 4e9, -1.5])
def test_moments_are_kept_to_the_millisecond(store: Store, mark: str, moment: float) -> None:
    store.write(insert(users).values(person(mark, created=moment)))
    found = store.first(select(users.c.created).where(users.c.id == f"{mark}-0"))
    assert found is not None
    assert math.isclose(found.created, moment, abs_tol=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 2**31, 2**53 + 1, 2**63 - 1])
def test_ranks_are_whole_numbers_of_64_bits(store: Store, mark: str, rank: int) -> None:
    """Nanoseconds since 1970 do not fit into 32 bits, nor exactly into a float."""
    store.write(insert(objects).values(thing(mark, {}) | {"rank": rank}))
    found = store.first(select(objects.c.rank).where(objects.c.kind == mark))
    assert found is not None
    assert found.rank == rank


def test_the_number_of_rows_changed_is_told(store: Store, mark: str) -> None:
    assert store.write((insert(users), [person(mark, n) for n in range(7)])) == 7
    mine = users.c.pseudonym == mark
    assert store.write(update(users).where(mine).values(role="admin")) == 7
    assert store.write(update(users).where(mine, users.c.id == "nobody").values(role="x")) == 0
    assert store.write(delete(users).where(mine, users.c.id < f"{mark}-3")) == 3
    assert store.write(delete(users).where(mine), insert(users).values(person(mark))) == 5
    assert count(store, mark) == 1


def test_what_is_there_is_passed_over_and_counted(store: Store, mark: str) -> None:
    assert store.add(users, [person(mark, n) for n in range(4)]) == 4
    assert store.add(users, [person(mark, n, role="other") for n in range(2, 6)]) == 2
    rows = store.read(select(users.c.role).where(users.c.pseudonym == mark).order_by(users.c.id))
    assert [row.role for row in rows] == ["user"] * 4 + ["other"] * 2


def test_a_contradiction_undoes_its_own_call_only(store: Store, mark: str) -> None:
    """Sent together: each call is a transaction, whatever commit they share."""
    gate = threading.Event()
    store.submit_work(lambda _: gate.wait(PATIENCE))
    calls = [store.submit(*(insert(users).values(person(mark, n)) for n in group)) for group in ([1, 2], [3, 1], [4])]
    gate.set()
    assert calls[0].result(PATIENCE) == 2
    with pytest.raises(CauserieError) as caught:
        calls[1].result(PATIENCE)
    assert caught.value.code == "CAU-1109"
    assert calls[2].result(PATIENCE) == 1
    rows = store.read(select(users.c.id).where(users.c.pseudonym == mark).order_by(users.c.id))
    assert [row.id for row in rows] == [f"{mark}-{n}" for n in (1, 2, 4)]


def test_counters_lose_no_increment(store: Store, mark: str) -> None:
    """Read, add one, write: a hundred times from eight threads, each a transaction."""
    store.write(insert(objects).values(thing(mark, {"n": 0})))
    mine = objects.c.kind == mark

    def bump(connection: Connection) -> int:
        body = connection.execute(select(objects.c.body).where(mine)).one().body
        connection.execute(update(objects).where(mine).values(body={"n": body["n"] + 1}))
        return int(body["n"]) + 1

    with ThreadPoolExecutor(8) as crowd:
        seen = list(crowd.map(lambda _: store.transact(bump), range(100)))
    assert sorted(seen) == list(range(1, 101))


def test_readers_see_whole_transactions_only(store: Store, mark: str) -> None:
    """Two rows that always change together are never seen apart."""
    store.write((insert(users), [person(mark, n, role="0") for n in range(2)]))
    stop, torn = threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            roles = {row.role for row in store.read(select(users.c.role).where(users.c.pseudonym == mark))}
            torn.extend([roles] if len(roles) != 1 else [])

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(30):
        one, other = (users.c.id == f"{mark}-{n}" for n in range(2))
        role = str(number)
        store.write(update(users).where(one).values(role=role), update(users).where(other).values(role=role))
    stop.set()
    watcher.join(PATIENCE)
    assert torn == []


def test_a_write_is_there_for_everybody_when_it_is_acknowledged(store: Store, mark: str) -> None:
    for number in range(20):
        assert store.write(insert(users).values(person(mark, number))) == 1
        assert count(store, mark) == number + 1


def test_cancelled_calls_are_dropped_or_done_whole(store: Store, mark: str) -> None:
    gate = threading.Event()
    store.submit_work(lambda _: gate.wait(PATIENCE))
    calls = [store.submit(*(insert(users).values(person(mark, f"{n}-{k}")) for k in range(3))) for n in range(10)]
    gone = sum(call.cancel() for call in calls[::2])
    gate.set()
    store.write(insert(users).values(person(mark, "last")))
    assert count(store, mark) == 3 * (10 - gone) + 1


def test_a_failure_of_the_caller_is_the_callers(store: Store, mark: str) -> None:
    """What the function raises comes back as it is; the database is not to blame."""

    def work(connection: Connection) -> None:
        connection.execute(insert(users).values(person(mark)))
        raise LookupError(mark)

    with pytest.raises(LookupError, match=mark):
        store.transact(work)
    assert count(store, mark) == 0
    assert store.failing is None


def test_rows_that_nobody_waits_for_arrive_in_order(store: Store, mark: str) -> None:
    log = RowLog(store, usage)
    for number in range(250):
        log.add(
            {"request_id": f"{mark}-{number:03}", "time": now(), "route": mark, "latency": 0.1, "status": 200} | COUNTS
        )
    wait_for(lambda: not log.waiting)
    rows = store.read(select(usage.c.request_id).where(usage.c.route == mark).order_by(usage.c.request_id))
    assert [row.request_id for row in rows] == [f"{mark}-{number:03}" for number in range(250)]
    assert (log.dropped, log.failing) == (0, False)


COUNTS = {"prompt_tokens": 1, "completion_tokens": 1}


def test_rows_wait_while_the_database_fails_and_none_is_written_twice(
    store: Store, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Commits fail for a while, after the rows were sent: they are kept, then written once."""
    failing = [True]

    def refuse(_connection: Connection) -> None:
        if failing[0]:
            raise OperationalError("COMMIT", None, Exception("the disk is away"))

    gate = threading.Event()
    store.submit_work(lambda _: gate.wait(PATIENCE))
    log = RowLog(store, usage)
    try:
        for number in range(30):
            log.add(
                {"request_id": f"{mark}-{number}", "time": now(), "route": mark, "latency": 0.1, "status": 200} | COUNTS
            )
        event.listen(store.engine, "commit", refuse)
        gate.set()  # only now does the writer come by: all of them are in its hands when it fails
        wait_for(lambda: log.failing)
        assert log.waiting == len(log.pending()) == 30
        assert "30 are waiting" in caplog.text
        failing[0] = False
        wait_for(lambda: not log.waiting)
    finally:
        event.remove(store.engine, "commit", refuse)
    rows = store.read(select(func.count()).select_from(usage).where(usage.c.route == mark))
    assert rows[0][0] == 30
    assert not log.failing
    assert store.write(insert(users).values(person(mark))) == 1
    assert store.failing is None


def test_what_is_pending_and_what_is_written_are_together_every_row(store: Store, mark: str) -> None:
    """Looked at again and again while rows come and are written: none is missing in both places."""
    log, stop, looked = RowLog(store, usage), threading.Event(), list[int]()
    written = select(usage.c.request_id).where(usage.c.route == mark)

    def watch() -> None:
        while not stop.is_set():
            count = len(added)
            seen = {row["request_id"] for row in log.pending()} | {row.request_id for row in store.read(written)}
            looked.append(count - len(seen & set(added[:count])))

    added: list[str] = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(300):
        id = f"{mark}-{number}"
        log.add({"request_id": id, "time": now(), "route": mark, "latency": 0.1, "status": 200} | COUNTS)
        added.append(id)
        time.sleep(0.001)
    wait_for(lambda: not log.waiting)
    stop.set()
    watcher.join(PATIENCE)
    assert set(looked) == {0}
    assert log.pending() == []


def test_of_too_many_waiting_rows_the_oldest_are_dropped_and_counted(
    store: Store, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_log_module, "MOST", 10)
    gate = threading.Event()
    store.submit_work(lambda _: gate.wait(PATIENCE))
    log = RowLog(store, usage)
    for number in range(25):
        log.add(
            {"request_id": f"{mark}-{number:02}", "time": now(), "route": mark, "latency": 0.1, "status": 200} | COUNTS
        )
    gate.set()
    wait_for(lambda: not log.waiting)
    rows = store.read(select(usage.c.request_id).where(usage.c.route == mark).order_by(usage.c.request_id))
    kept = [row.request_id for row in rows]
    assert len(kept) + log.dropped == 25
    assert kept[-1] == f"{mark}-24"


def test_asynchronous_callers_do_not_block_each_other(store: Store, mark: str) -> None:
    async def one(number: int) -> int:
        return await asyncio.wrap_future(store.submit(insert(users).values(person(mark, number))))

    async def all_() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(60)))

    assert asyncio.run(all_()) == [1] * 60
    assert count(store, mark) == 60


def test_nothing_that_was_remembered_outlives_a_change(store: Store) -> None:
    before = store.epoch("api_keys")
    store.touch("api_keys")
    assert store.epoch("api_keys") == before + 1
    assert store.epoch("another table") == 0
    made: list[int] = []
    assert [store.remember("one thing", lambda: made.append(1) or "it") for _ in range(3)] == ["it"] * 3
    assert made == [1]


@pytest.mark.parametrize("table", metadata.tables.values(), ids=metadata.tables)
def test_every_table_can_be_listed_and_counted(store: Store, table: Any) -> None:
    assert store.read(select(func.count()).select_from(table))[0][0] >= 0
    assert store.read(select(table).limit(1)) is not None


@pytest.mark.parametrize("table", metadata.tables.values(), ids=metadata.tables)
def test_a_row_without_its_key_is_refused(store: Store, table: Any) -> None:
    """By the schema, on both: nothing is stored that could not be found again."""
    with pytest.raises(CauserieError) as caught:
        store.write(insert(table).values(**{column.name: None for column in table.primary_key.columns}))
    assert caught.value.code in ERRORS
    assert store.failing is None or caught.value.code != "CAU-1109"
