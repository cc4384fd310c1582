"""Runs the migrations on the connection that `causerie.store.migrate` (or a developer's `alembic` command) gives."""

from __future__ import annotations

from alembic import context

from causerie.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
