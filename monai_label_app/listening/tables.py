"""The tables of a node's database; ``monai_label_app/migrations/jobs`` makes them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, Text

TABLES = MetaData()

NODE = Table("node", TABLES, Column("folder", String(32), primary_key=True))
"""One row: the state folder whose files the database speaks of."""

RECEIVED = Table(
    "received",
    TABLES,
    Column("uid", String(64), primary_key=True),
    Column("study", String(64), nullable=False, index=True),
    Column("patient", Text, nullable=False),
)

JOBS = Table(
    "jobs",
    TABLES,
    Column("study", String(64), primary_key=True),
    Column("task", String(400), primary_key=True),
    Column("state", String(8), nullable=False),
    # How often there was something new to do: who began before that has not done it.
    Column("revision", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed", Float, nullable=False),
)

RESULTS = Table(
    "results",
    TABLES,
    Column("uid", String(64), primary_key=True),
    Column("task", String(400), primary_key=True),
    Column("study", String(64), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("sent", Boolean, nullable=False),
)

POLLED = Table(
    "polled",
    TABLES,
    Column("source", String(400), primary_key=True),
    Column("study", String(64), primary_key=True),
    Column("instances", Integer, nullable=False),
)

DROPPED = Table("dropped", TABLES, Column("uid", String(64), primary_key=True))
"""SOP Instance UIDs of the images of studies that a person dropped: who polls does not fetch them again."""
