"""The platform: keys that end and have quotas; usage with its project, cached tokens and price version.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("api_keys", sa.Column("expires", sa.Double(), nullable=True))
    op.add_column("api_keys", sa.Column("used", sa.Double(), nullable=True))
    op.add_column("api_keys", sa.Column("limits", sa.JSON(none_as_null=True), nullable=True))
    op.create_index(op.f("ix_api_keys_project"), "api_keys", ["project"], unique=False)
    op.add_column("usage", sa.Column("project", sa.Text(), nullable=True))
    op.add_column("usage", sa.Column("cached_tokens", sa.BigInteger(), nullable=True))
    op.add_column("usage", sa.Column("price", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    for column in ("price", "cached_tokens", "project"):
        op.drop_column("usage", column)
    op.drop_index(op.f("ix_api_keys_project"), table_name="api_keys")
    for column in ("limits", "used", "expires"):
        op.drop_column("api_keys", column)
