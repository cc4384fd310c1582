"""The page: accounts and their sessions; pins, folders and settings of conversations; files beside a question.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables and add the columns."""
    op.create_table(
        "accounts",
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("daily_tokens", sa.BigInteger(), nullable=True),
        sa.Column("disabled", sa.Double(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("user", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
        sa.UniqueConstraint("subject", name=op.f("uq_accounts_subject")),
    )
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_user"), "sessions", ["user"], unique=False)
    op.add_column("conversations", sa.Column("pinned", sa.Double(), nullable=True))
    op.add_column("conversations", sa.Column("folder", sa.Text(), nullable=True))
    op.add_column("conversations", sa.Column("settings", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("messages", sa.Column("attachments", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("messages", "attachments")
    for column in ("settings", "folder", "pinned"):
        op.drop_column("conversations", column)
    op.drop_index(op.f("ix_sessions_user"), table_name="sessions")
    op.drop_table("sessions")
    op.drop_table("accounts")
