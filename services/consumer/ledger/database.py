"""Connections to the ledger's schema, and its migrations."""

from __future__ import annotations

from importlib.resources import files

from psycopg import conninfo, sql

from services.kit import postgres
from services.kit.postgres import Connection

SCHEMA = "ledger"
_IDLE_IN_TRANSACTION_SECONDS = 10
"""A process that was stopped in a transaction, or whose host vanished from the network, holds its people locked for so long. The
server cannot know otherwise: by default it looks after a silent client for two hours."""


def connect(url: str, *, autocommit: bool = True, statement_timeout_seconds: float = 0) -> Connection:
    """A connection for one owner thread that sees the ledger's tables without a prefix. Timeout 0 means none."""
    connection = postgres.connect(address(url), autocommit=autocommit)
    with connection.transaction():
        connection.execute(sql.SQL("set statement_timeout = {}").format(int(statement_timeout_seconds * 1000)))
        idle = sql.SQL("set idle_in_transaction_session_timeout = {}").format(_IDLE_IN_TRANSACTION_SECONDS * 1000)
        connection.execute(idle)
    return connection


def address(url: str) -> str:
    """`url` with the ledger's schema as search path, for any PostgreSQL driver that speaks libpq."""
    parameters = conninfo.conninfo_to_dict(url)
    options = f"{parameters.get('options') or ''} -c search_path={SCHEMA}".strip()
    return conninfo.make_conninfo(url, options=options)


def migrate(url: str) -> None:
    """Bring the ledger's tables up to date; several processes may do so at once."""
    postgres.migrate(url, files("services.consumer.ledger") / "migrations", SCHEMA)
