"""The append-only history: what happened to whom, in references and codes, never in names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import orjson
import psycopg
import structlog
from psycopg import sql

from services.kit.postgres import Connection, text_array

log = structlog.get_logger()


class Happening(NamedTuple):
    """One row of history. `person` is empty for what concerns no single person (a section's own event, for example)."""

    tenant: str
    person: str
    what: str
    """received, superseded, duplicate, hash_alarm, parked, undecodable, decided, conflict, ..."""
    section: str | None = None
    target: str | None = None
    seat: str | None = None
    kind: str | None = None
    key: str | None = None
    version: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    detail: dict[str, Any] | None = None


def append(connection: Connection, happenings: Iterable[Happening]) -> None:
    """Append in the caller's transaction, in order."""
    rows = list(happenings)
    if not rows:
        return
    columns = [_literal(column) for column in zip(*rows, strict=True)]
    connection.execute(
        """insert into history
             (tenant, person, what, section, target, seat, kind, key, version, topic, "partition", "offset", detail)
           select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                                %s::bigint[], %s::text[], %s::int[], %s::bigint[], %s::jsonb[])""",
        columns,
    )


def _literal(column: Sequence[Any]) -> str:
    """A column that says nothing is an empty array: `unnest` fills the shorter ones up with NULL."""
    if column.count(None) == len(column):
        return "{}"
    return text_array(column if isinstance(column[0], str) else map(_text, column))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, dict) else str(value)


def create_partitions(connection: Connection, today: date, months: int = 3) -> None:
    """Have a partition for this month and those that follow; safe to call from several processes and at any time.

    A month that already has rows in the default partition (nobody created it in time) stays there: history is never refused.
    """
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended('history partitions', 0))")
        for start, end in _months(today, months):
            try:
                with connection.transaction():
                    connection.execute(_create(start, end))
            except psycopg.errors.CheckViolation:
                log.warning("history_month_stays_in_default_partition", table=partition(start))


def months(connection: Connection) -> list[date]:
    """The months that have partitions, by their first days, the oldest first."""
    rows = connection.execute(
        """select to_date(substr(child.relname, 9), 'YYYY_MM')
             from pg_inherits join pg_class as child on child.oid = inhrelid
            where inhparent = 'history'::regclass and child.relname ~ '^history_[0-9]{4}_[0-9]{2}$' order by 1"""
    ).fetchall()
    return [month for (month,) in rows]


def partition(month: date) -> str:
    """The name of a month's table."""
    return f"history_{month:%Y_%m}"


def _create(start: date, end: date) -> sql.Composed:
    return sql.SQL("create table if not exists {} partition of history for values from ({}) to ({})").format(
        sql.Identifier(partition(start)), _midnight(start), _midnight(end)
    )


def _midnight(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).isoformat()


def _months(today: date, count: int) -> Iterable[tuple[date, date]]:
    starts = [
        date(today.year + (today.month - 1 + ahead) // 12, (today.month - 1 + ahead) % 12 + 1, 1) for ahead in range(count + 1)
    ]
    return pairwise(starts)
