"""What the ledger forgets: months of history, and operations that have long been over. The audit is kept."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import psycopg
import structlog
from psycopg import sql

from services.consumer.ledger import history
from services.kit.postgres import Connection

log = structlog.get_logger()

_OPERATIONS_KEPT = timedelta(days=90)
_WAIT = "set local lock_timeout = '1s'"
"""For whoever reads a month: meanwhile everybody who writes history waits behind us."""

# A plan and the replay that applied it go together.
_REPLAYS = """
delete from replay
 where finished_at < %(before)s
   and not exists (select from replay as applied
                    where applied.plan = replay.replay and (applied.finished_at is null or applied.finished_at >= %(before)s))
"""
_HOLDS = """
delete from hold
 where closed_at < %(before)s
   and not exists (select from work where work.target = hold.target and work.hold = hold.hold)
"""
_PLANNED_CHANGES = "delete from planned_change where coalesce(withdrawn_at, until_at) < %(before)s"


def forget(connection: Connection, now: datetime, history_months: int) -> None:
    """Drop the months of history before the last `history_months` (0: none), and forget replays, holds and planned changes that
    were over 90 days before `now`."""
    if history_months:
        for month in history.months(connection):
            if month < _months_before(now.date(), history_months):
                _drop(connection, month)
    before = {"before": now - _OPERATIONS_KEPT}
    for statement in (_REPLAYS, _HOLDS, _PLANNED_CHANGES):
        connection.execute(statement, before)


def _drop(connection: Connection, month: date) -> None:
    name = history.partition(month)
    try:
        with connection.transaction():
            connection.execute(_WAIT)
            connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(name)))
    except psycopg.errors.LockNotAvailable:
        log.info("history_month_is_being_read", table=name)  # the next hour will do
    else:
        log.info("history_month_dropped", table=name)


def _months_before(day: date, count: int) -> date:
    months = day.year * 12 + day.month - 1 - count
    return date(months // 12, months % 12 + 1, 1)
