"""Analyses that were asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table, if it is not there: the first EndoLens made it without a number."""
    op.create_table(
        "analyses",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("study", sa.String(64), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("frames", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("stored", sa.Integer, nullable=False),
        sa.Column("problems", sa.JSON, nullable=False),
        sa.Column("asked", sa.Float, nullable=False),
        sa.Column("server", sa.String(32)),
        sa.Column("alive", sa.Float),
        if_not_exists=True,
    )
    unended = sa.text("state IN ('queued', 'running', 'storing')")
    op.create_index(
        "one_analysis_a_study",
        "analyses",
        ["study"],
        unique=True,
        sqlite_where=unended,
        postgresql_where=unended,
        if_not_exists=True,
    )
