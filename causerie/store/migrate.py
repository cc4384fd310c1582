"""Bringing a database to the present schema, once, however many processes open it at the same time."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from causerie.core import CauserieError
from causerie.store.schema import HEAD

_ADVISORY_LOCK = 0x43415553
"""Number of the PostgreSQL advisory lock that migrations take."""


def upgrade(engine: Engine, where: str) -> bool:
    """Apply the migrations that are missing, in one transaction; returns whether there were any.

    Raises:
        CauserieError: CAU-1106 when the database is newer than this program.
    """
    with engine.connect() as connection:
        if current_revision(connection) == HEAD:
            return False
    with engine.connect().execution_options(causerie_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
        if current_revision(connection) == HEAD:
            return False
        _run_migrations(connection, where)
    return True


def current_revision(connection: Connection) -> str | None:
    """The migration that the database is at; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _run_migrations(connection: Connection, where: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise CauserieError(
            "CAU-1106",
            f"the database is at a migration that this version does not know: {error}",
            where=where,
            fix="upgrade causerie to the version that made the database",
        ) from error
