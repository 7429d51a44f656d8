"""PostgreSQL: connections, migrations, and array parameters as text literals."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from importlib.resources.abc import Traversable
from typing import NamedTuple, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

Connection = psycopg.Connection[TupleRow]

AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""What a database raises that is down, restarting, unreachable or, after a failover, read-only: wait and connect anew. Deadlocks
and statements that took too long are among them, and a transaction that was ended because we stood still in it; they have changed
nothing either."""

_NOTICE_A_DEAD_PEER: dict[str, str | int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""A database host that vanishes without a word is noticed within half a minute, not after the system's two hours. What the URL
says goes first."""
_BE_NOTICED_WHEN_DEAD = (
    "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; set tcp_user_timeout = 20000"
)
"""The same for the server: the session of a host that vanished, and every lock it holds, would stay for two hours."""


class MigrationError(RuntimeError):
    """The database's schema does not fit this program; the message says which migration and what to do."""


class DatabaseIdentity(NamedTuple):
    """Which history of which database we are talking to. Both change when a standby is promoted or a backup restored."""

    system_id: str
    timeline: int


def connect(url: str, *, autocommit: bool = True) -> Connection:
    """A connection for one owner thread.

    Generic plans: the statements with ``unnest`` run the same plan for any array, and planning them anew costs a third of
    their time. Turn it off for a query with LIMIT whose best plan depends on the data.
    """
    connection = psycopg.connect(make_conninfo("", **_NOTICE_A_DEAD_PEER | conninfo_to_dict(url)), autocommit=autocommit)
    connection.execute(f"set plan_cache_mode = force_generic_plan; {_BE_NOTICED_WHEN_DEAD}")
    return connection


def prefer_indexes(connection: Connection) -> None:
    """For an owner whose statements look rows up by key. While a table is empty, going through it is the cheapest plan, and it is
    kept; a scan that cannot be avoided then looks so dear that the server would compile it, hence no JIT."""
    connection.execute("set enable_seqscan = off; set jit = off")


class Plans:
    """Has an owner's statements planned anew now and then.

    In a table that nobody has counted yet one index looks as good as another. A plan that was made then may go through all rows
    of the tenant, and it is kept until the server has counted them, a minute or so into a first load.
    """

    _EVERY_SECONDS = 1.0
    _MUCH = 50
    """Rows or records. Planning takes some milliseconds: much for a single change, nothing beside so many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._renew_at = float("-inf")
        self._since = 0
        """Rows that have met these plans."""

    def keep_fresh(self, connection: Connection, size: int) -> None:
        """Call it before a batch of this size, outside of a transaction."""
        self._since += size
        now = self._clock()
        if self._since >= self._MUCH and now >= self._renew_at:
            self._renew_at = now + self._EVERY_SECONDS
            self._since = 0
            connection.execute("discard plans")


def text_array(values: Iterable[str | None]) -> str:
    """A PostgreSQL array literal (``{"a","b",NULL}``), to be cast with ``::text[]`` or another array type.

    psycopg adapts a Python list element by element; one literal costs a small part of that. Backslash and quote are escaped,
    None becomes NULL (array input syntax: PostgreSQL documentation, section 8.15.6). Raises `psycopg.DataError` for a text with
    a NUL character, which PostgreSQL does not store.
    """
    texts = list(values)
    if not texts:
        return "{}"
    if None in texts:
        return "{" + ",".join("NULL" if text is None else _elements([text]) for text in texts) + "}"
    return "{" + _elements(cast(list[str], texts)) + "}"


def _elements(texts: list[str]) -> str:
    """All at once: a few passes over one long text are much faster than a function call for each of many short ones."""
    joined = "\0".join(texts)
    if joined.count("\0") != len(texts) - 1:
        raise psycopg.DataError("PostgreSQL text cannot contain NUL characters")
    return '"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","') + '"'


def identity(connection: Connection) -> DatabaseIdentity:
    """The database's system identifier and its current timeline (the first 8 hex digits of a WAL file's name)."""
    row = connection.execute(
        """select system_identifier::text,
                  ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
             from pg_control_system()"""
    ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate-like function always returns its row)
    return DatabaseIdentity(row[0], row[1])


def migrate(url: str, migrations: Traversable, schema: str) -> None:
    """Bring `schema` up to date with the ``*.sql`` files of a folder, in name order, each in one transaction.

    Several processes may call this at once: an advisory lock lets one work while the others wait. An applied file that was
    edited afterwards is refused (`MigrationError`): schema changes are new files.
    """
    with psycopg.connect(url) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"migrate {schema}"])
        connection.execute(f'create schema if not exists "{schema}"')
        connection.execute(f'set local search_path = "{schema}"')
        connection.execute(
            "create table if not exists migration (name text primary key, digest text not null, at timestamptz default now())"
        )
        applied: dict[str, str] = dict(connection.execute("select name, digest from migration").fetchall())
        for file in sorted((f for f in migrations.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name):
            _apply(connection, file, applied.get(file.name))


def _apply(connection: Connection, file: Traversable, applied_digest: str | None) -> None:
    text = file.read_text()
    digest = hashlib.sha256(text.encode()).hexdigest()
    if applied_digest == digest:
        return
    if applied_digest is not None:
        raise MigrationError(f"{file.name} was changed after it had been applied; put the change into a new file")
    connection.execute(text)
    connection.execute("insert into migration (name, digest) values (%s, %s)", [file.name, digest])
