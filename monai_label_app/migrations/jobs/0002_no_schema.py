"""The version of the tables is Alembic's to know."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Take the column away; SQLite copies the table."""
    with op.batch_alter_table("node") as node:
        node.drop_column("schema")
