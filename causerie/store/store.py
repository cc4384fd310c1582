"""The store: one SQL database, SQLite in the workspace by default, one writing thread, durable when it says so."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    Row,
    Select,
    Table,
    column,
    create_engine,
    event,
    insert,
    make_url,
    select,
    table,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from causerie.core import CauserieError
from causerie.store.errors import database_error
from causerie.store.migrate import upgrade
from causerie.store.writer import Job, Writer

FILE: Final = "causerie.db"
"""Name of the SQLite file in the workspace."""

ENVIRONMENT: Final = "CAUSERIE_DATABASE"
"""Environment variable with a database URL, used when none is given."""

BUSY_SECONDS: Final = 30.0
"""How long a connection waits for another process's lock before CAU-1102."""

T = TypeVar("T")
Statement = Executable | tuple[Executable, Sequence[Mapping[str, Any]]]
"""A statement, or a statement with the rows it is executed for."""


class Store:
    """An open database; made by `open_store`. Every method may be called from any thread."""

    def __init__(self, engine: Engine, where: str) -> None:
        self.engine = engine
        self.where = where
        self._writer = Writer(engine, where)
        self._epochs: Counter[str] = Counter()
        self._remembered: dict[str, Any] = {}

    def read(self, statement: Select[Any]) -> list[Row[Any]]:
        """Rows of a query, as committed at this moment; columns are attributes: `row.created`.

        Raises:
            CauserieError: CAU-1101 … CAU-1111 as the database fails.
        """
        if self._writer.closed:
            raise _closed(self.where)
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(statement).all())
        except DBAPIError as error:
            raise database_error(error, self.where) from error

    def first(self, statement: Select[Any]) -> Row[Any] | None:
        """The first row of a query, or None."""
        rows = self.read(statement.limit(1))
        return rows[0] if rows else None

    def write(self, *statements: Statement) -> int:
        """Execute statements in one transaction; returns after it is on the disk, with the number of rows changed.

        Raises:
            CauserieError: CAU-1109 when a row contradicts another; nothing of this call was written then.
        """
        changed: int = self.submit(*statements).result()
        return changed

    def submit(self, *statements: Statement) -> Future[int]:
        """As `write`, without waiting: `await asyncio.wrap_future(store.submit(...))` in asynchronous code."""
        return self.submit_work(lambda connection: sum(_execute(connection, statement) for statement in statements))

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run a function that reads and writes in one transaction; returns its result after the commit.

        The function must have no effect but on the connection: it may run twice when the database fails midway.
        """
        return self.submit_work(work).result()

    def submit_work(self, work: Callable[[Connection], T]) -> Future[T]:
        """As `transact`, without waiting."""
        future = self._writer.submit(work)
        if future is None:
            raise _closed(self.where)
        return future

    def epoch(self, table: str) -> int:
        """How often this process said that a table's rows changed: what was remembered at another epoch is stale."""
        return self._epochs[table]

    def touch(self, table: str) -> None:
        """Say that a table's rows changed, so that nobody in this process trusts what they remember of them."""
        self._epochs[table] += 1

    def remember(self, name: str, make: Callable[[], T]) -> T:
        """Something of which an open database needs one, made when it is first asked for."""
        if name not in self._remembered:
            self._remembered[name] = make()
        found: T = self._remembered[name]
        return found

    def poll(self, source: Callable[[], Job | None]) -> None:
        """Ask a source for writes that nobody waits for, now and then; see `Writer.poll`."""
        self._writer.poll(source)

    @property
    def failing(self) -> CauserieError | None:
        """Why the last commit failed; None when it did not."""
        return self._writer.failing

    @property
    def queued(self) -> int:
        """Writes that wait for their commit."""
        return self._writer.queued

    def add(self, table: Table, rows: Iterable[Mapping[str, Any]]) -> int:
        """Insert the rows whose key is not there yet, leaving the others as they are; returns how many were new."""
        given = [dict(row) for row in rows]
        statement = self.insert_new(table)
        return self.write((statement, given)) if given else 0

    def insert_new(self, table: Table) -> Executable:
        """An insert that passes over rows whose key is already there, in this database's dialect."""
        if self.engine.dialect.name == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        return sqlite.insert(table).on_conflict_do_nothing()

    def scrub(self) -> None:
        """Remove deleted and overwritten content from the files themselves, as far as the database can.

        SQLite: content is zeroed as it is deleted; here full-text indexes, which would keep the words until they are
        merged, are filled anew from their tables, and the write-ahead log is emptied.
        """
        if self.engine.dialect.name == "sqlite":
            indexes: Select[Any] = select(column("name")).select_from(table("sqlite_master"))
            pattern = "CREATE VIRTUAL TABLE%USING fts5(%content='%"
            names = [row.name for row in self.read(indexes.where(column("sql").like(pattern)))]
            self.write(*(insert(table(name, column(name))).values({name: "rebuild"}) for name in names))
            raw = self.engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                raw.close()

    def close(self) -> None:
        """Commit what is queued and let go of the database; closing twice is no error."""
        self._writer.close()
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(workspace: Path, url: str | None = None) -> Store:
    """Open the database, making or upgrading it where needed.

    Args:
        workspace: folder of the SQLite file `causerie.db` (made when absent).
        url: an SQLAlchemy URL such as `postgresql+psycopg://…`; default `CAUSERIE_DATABASE`, else the file.

    Raises:
        CauserieError: CAU-1101 … CAU-1107, see `ERRORS`.
    """
    url = url or os.environ.get(ENVIRONMENT)
    engine = _make_engine(url) if url else _file_engine(workspace)
    where = engine.url.render_as_string(hide_password=True) if url else str(workspace / FILE)
    try:
        if engine.dialect.name == "sqlite":
            _durable_journal(engine)
        upgrade(engine, where)
    except DBAPIError as error:
        engine.dispose()
        raise database_error(error, where) from error
    except CauserieError:
        engine.dispose()
        raise
    return Store(engine, where)


def _file_engine(workspace: Path) -> Engine:
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CauserieError(
            "CAU-1101",
            f"cannot make the folder: {error.strerror}",
            where=str(workspace),
            fix="choose another --workspace",
        ) from error
    return _make_engine(f"sqlite:///{workspace / FILE}")


def _make_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ArgumentError("a database in memory keeps nothing")
        arguments = {"timeout": BUSY_SECONDS} if parsed.get_backend_name() == "sqlite" else {}
        engine = create_engine(parsed, connect_args=arguments, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise CauserieError(
            "CAU-1107",
            f"cannot use this database URL: {error}",
            where=f"--database or {ENVIRONMENT}",
            fix="use sqlite:///FILE, or postgresql+psycopg://… after `pip install psycopg[binary]`",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    """Set up a SQLite connection: our own BEGIN, full durability, foreign keys held, deleted content zeroed."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    """Begin a SQLite transaction; a writing one takes the write lock at once, so that it cannot deadlock later."""
    write = connection.get_execution_options().get("causerie_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _durable_journal(engine: Engine) -> None:
    """Switch the file to write-ahead logging and check that commits reach the disk.

    Switching does not wait for other processes' locks by itself, so it is tried until `BUSY_SECONDS` are over.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            journal, synchronous = _set_journal(engine)
        except engine.dialect.loaded_dbapi.Error as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise DBAPIError("PRAGMA journal_mode=WAL", None, error) from error
            time.sleep(0.02)
        else:
            assert journal == "wal", journal
            assert synchronous == 2, synchronous
            return


def _set_journal(engine: Engine) -> tuple[str, int]:
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        journal = cursor.fetchone()
        cursor.execute("PRAGMA synchronous")
        synchronous = cursor.fetchone()
        assert journal is not None
        assert synchronous is not None
        return str(journal[0]), int(synchronous[0])
    finally:
        raw.close()


def _execute(connection: Connection, statement: Statement) -> int:
    if isinstance(statement, tuple):
        rows = [dict(row) for row in statement[1]]
        result = connection.execute(statement[0], rows, execution_options={"preserve_rowcount": True})
    else:
        result = connection.execute(statement, execution_options={"preserve_rowcount": True})
    return max(result.rowcount, 0)


def _closed(where: str) -> CauserieError:
    return CauserieError("CAU-1108", "the store is closed", where=where, fix="open it again with open_store")
