"""Studies of an archive."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table, if it is not there: the first EndoLens made it without a number."""
    op.create_table(
        "studies",
        sa.Column("work", sa.String(64), primary_key=True),
        sa.Column("study", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        if_not_exists=True,
    )
