"""The objects of the API: files, jobs, batches, responses and the like.

Revision 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "objects",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "parent", "id", name=op.f("pk_objects")),
    )
    op.create_index("ix_objects_list", "objects", ["kind", "owner", "parent", "rank"], unique=False)
    op.create_index("ix_objects_status", "objects", ["kind", "status"], unique=False)


def downgrade() -> None:
    """Drop the table."""
    op.drop_index("ix_objects_status", table_name="objects")
    op.drop_index("ix_objects_list", table_name="objects")
    op.drop_table("objects")
