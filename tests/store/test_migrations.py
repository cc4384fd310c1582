"""The migrations make exactly the schema, and the schema is plain enough for PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

import causerie.store
from causerie.store import Store, metadata, open_store
from causerie.store.migrate import current_revision, upgrade
from causerie.store.schema import HEAD

FOLDER = Path(causerie.store.__file__).parent / "migrations"


def test_migrated_schema_is_the_metadata(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert current_revision(connection) == HEAD


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_a_second_opening_migrates_nothing(workspace: Path) -> None:
    open_store(workspace).close()
    with open_store(workspace) as store:
        assert upgrade(store.engine, "here") is False


def test_a_failing_migration_leaves_the_database_as_it_was(workspace: Path) -> None:
    """All migrations run in one transaction: a table that is in the way stops them without a trace."""
    import pytest

    from causerie.core import CauserieError

    engine = create_engine(f"sqlite:///{workspace / 'causerie.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE usage (x INTEGER)")
    with pytest.raises(CauserieError):
        open_store(workspace)
    assert inspect(engine).get_table_names() == ["usage"]
    engine.dispose()


def test_every_table_compiles_for_postgresql() -> None:
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))
