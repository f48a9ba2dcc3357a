"""What a node received, and what is to be done with it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, if they are not there: the first EndoLens made them without a number."""
    op.create_table(
        "node",
        sa.Column("folder", sa.String(32), primary_key=True),
        sa.Column("schema", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "received",
        sa.Column("uid", sa.String(64), primary_key=True),
        sa.Column("study", sa.String(64), nullable=False),
        sa.Column("patient", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_received_study", "received", ["study"], if_not_exists=True)
    op.create_table(
        "jobs",
        sa.Column("study", sa.String(64), primary_key=True),
        sa.Column("task", sa.String(400), primary_key=True),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("changed", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "results",
        sa.Column("uid", sa.String(64), primary_key=True),
        sa.Column("task", sa.String(400), primary_key=True),
        sa.Column("study", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("sent", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_results_study", "results", ["study"], if_not_exists=True)
    op.create_table(
        "polled",
        sa.Column("source", sa.String(400), primary_key=True),
        sa.Column("study", sa.String(64), primary_key=True),
        sa.Column("instances", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_table("dropped", sa.Column("uid", sa.String(64), primary_key=True), if_not_exists=True)
