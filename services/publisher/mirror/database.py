"""Connections to the mirror, and array literals of the keys that its statements take."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import NamedTuple

import psycopg

from services.kit import postgres
from services.kit.postgres import Connection, DatabaseIdentity, text_array

SCHEMA = "mirror"


class MirrorIdentity(NamedTuple):
    """Which mirror this is: its database, and the floor that its last recovery chose. Equal to the newest marker when nothing
    was lost."""

    database: DatabaseIdentity
    floor: int


class Sighting(NamedTuple):
    """A mirror as one process found it when it opened it."""

    mirror: MirrorIdentity
    incarnation: str
    """What was put back to an earlier moment, from a disk or a dump, has the same identity; this tells it apart."""


def migrate(url: str) -> None:
    """Create or update the tables."""
    postgres.migrate(url, files("services.publisher.mirror") / "migrations", SCHEMA)


def connect(url: str) -> Connection:
    """A connection for one owner thread. A lock or a statement that takes this long has gone wrong: fail, and be sent again."""
    connection = postgres.connect(url)
    postgres.prefer_indexes(connection)
    # Nor is a table joined as a whole with the rows of a request: how many these are the planner can only guess.
    connection.execute("set enable_hashjoin = off; set enable_mergejoin = off")
    connection.execute(f'set search_path = "{SCHEMA}"')
    connection.execute("set lock_timeout = '5s'; set statement_timeout = '20s'")
    # A process that was stopped in a transaction holds its entities locked: less long than a request waits for them.
    connection.execute("set idle_in_transaction_session_timeout = '5s'")
    return connection


def mirror_identity(connection: Connection) -> MirrorIdentity | None:
    """What this database says of itself; None when it is no opened mirror, or not of the database it is stored in."""
    database = postgres.identity(connection)
    try:
        row = connection.execute("select system_id, timeline, floor from mirror").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    if row is None or DatabaseIdentity(row[0], row[1]) != database:
        return None
    return MirrorIdentity(database, row[2])


def sighting(connection: Connection) -> Sighting | None:
    """What is found now; None as in `mirror_identity`."""
    found = mirror_identity(connection)
    return Sighting(found, incarnation(connection)) if found else None


def incarnation(connection: Connection) -> str:
    """Changes when the server is started, when a database is put in the place of another one, and when a dump is loaded."""
    row = connection.execute(
        """select concat_ws(' ', pg_postmaster_start_time(), oid, 'mirror'::regclass::oid)
             from pg_database where datname = current_database()"""
    ).fetchone()
    assert row is not None  # noqa: S101
    return str(row[0])


def text_columns(rows: Iterable[tuple[str | None, ...]]) -> list[str]:
    """An array literal for each column of some rows, of which there must be one."""
    return [text_array(column) for column in zip(*rows, strict=True)]


def int_array(values: Iterable[int]) -> str:
    """A literal for ``::bigint[]``."""
    return "{" + ",".join(map(str, values)) + "}"
