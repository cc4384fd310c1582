"""Databases of every earlier version, full of rows, opened by this one: nothing that was in them is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Boolean,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    Table,
    create_engine,
    insert,
    make_url,
    select,
    text,
)

import causerie.store
from causerie.store import new_id, open_store
from tests.postgresql import cluster

FOLDER = Path(causerie.store.__file__).parent / "migrations"
ROWS = 3


def scripts() -> Config:
    """Alembic's settings for our migrations."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    return config


REVISIONS = [each.revision for each in ScriptDirectory.from_config(scripts()).walk_revisions()][::-1]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, on each kind of server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'causerie.db'}"
    server = make_url(request.getfixturevalue("postgres"))
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    name = new_id("old")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


def move(connection: Connection, revision: str) -> None:
    """Bring a database to a version."""
    config = scripts()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def value(column: Any, number: int) -> Any:
    """Something for a column, another for each row."""
    kind = column.type
    if column.foreign_keys:
        return f"id-{number}"
    if isinstance(kind, JSON) or "JSON" in type(kind).__name__:
        return {"n": number, "é": ["\u2028", None]}
    if isinstance(kind, Boolean):
        return bool(number % 2)
    if isinstance(kind, Integer):
        return number + 1
    if isinstance(kind, Float) or "DOUBLE" in str(kind).upper() or "REAL" in str(kind).upper():
        return number + 0.25
    if "BLOB" in str(kind).upper() or "BYTEA" in str(kind).upper():
        return bytes([number, 0, 255])
    return f"id-{number}"


def fill(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Rows in every table of a database, whatever its version; what was put in, by table."""
    tables = MetaData()
    tables.reflect(connection)
    put: dict[str, list[dict[str, Any]]] = {}
    for table in tables.sorted_tables:
        if table.name == "alembic_version":
            continue
        rows = [{column.name: value(column, number) for column in table.columns} for number in range(ROWS)]
        connection.execute(insert(table), rows)
        put[table.name] = rows
    return put


def kept(engine: Engine, name: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table, as far as the columns that it had."""
    table = Table(name, MetaData(), autoload_with=engine)
    columns = [table.c[column] for column in row]
    with engine.connect() as connection:
        return [dict(found._mapping) for found in connection.execute(select(*columns))]


@pytest.mark.parametrize("revision", REVISIONS)
def test_rows_of_every_version_are_there_afterwards(url: str, revision: str, tmp_path: Path) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        move(connection, revision)
        put = fill(connection)
    with open_store(tmp_path, None if url.startswith("sqlite") else url) as store:
        for name, rows in put.items():
            found = kept(store.engine, name, rows[0])
            assert sorted(found, key=str) == sorted(rows, key=str), name
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_an_upgrade_that_breaks_off_changes_nothing(
    revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at the very end of the last migration: the old version opens the database as it was."""
    engine = create_engine(f"sqlite:///{tmp_path / 'causerie.db'}")
    with engine.begin() as connection:
        move(connection, revision)
        put = fill(connection)
    tables = MetaData()
    tables.reflect(engine)
    before = {table.name: sorted(table.columns.keys()) for table in tables.sorted_tables}
    real = command.upgrade

    def dies(*arguments: Any) -> None:
        real(*arguments)
        raise SystemExit

    monkeypatch.setattr(command, "upgrade", dies)
    with pytest.raises(SystemExit):
        open_store(tmp_path)
    after = MetaData()
    after.reflect(engine)
    assert {table.name: sorted(table.columns.keys()) for table in after.sorted_tables} == before
    assert all(len(kept(engine, name, rows[0])) == ROWS for name, rows in put.items())
    monkeypatch.undo()
    open_store(tmp_path).close()
    engine.dispose()
