"""Canaries: candidates on trial with a share of the conversations.

Revision 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "canaries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_canaries")),
    )
    op.create_index(op.f("ix_canaries_name"), "canaries", ["name"], unique=False)
    op.create_index(op.f("ix_canaries_status"), "canaries", ["status"], unique=False)


def downgrade() -> None:
    """Drop the table."""
    op.drop_index(op.f("ix_canaries_status"), table_name="canaries")
    op.drop_index(op.f("ix_canaries_name"), table_name="canaries")
    op.drop_table("canaries")
