"""Reports and their versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, if they are not there: the first EndoLens made them without a number."""
    op.create_table(
        "reports",
        sa.Column("study", sa.String(64), primary_key=True),
        sa.Column("current", sa.Integer, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
        sa.Column("algorithm", sa.JSON, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "versions",
        sa.Column("study", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("base", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("saved", sa.DateTime, nullable=False),
        sa.Column("set_aside", sa.Boolean, nullable=False),
        sa.Column("signature", sa.JSON),
        sa.Column("documents", sa.JSON),
        if_not_exists=True,
    )
