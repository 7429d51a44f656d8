"""Recovery mode: what the ledger does when it learns that it has lost history (a restore, a promotion, an empty database).

What the LMS was told after the point that the ledger remembers is forgotten, so nothing it believes about a seat can be trusted:
every seat is unknown and suspect, nobody holds a lease, and the first write to a seat is preceded by a read.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog

from services.consumer.ledger import audit
from services.consumer.nouns import PRIORITY_REPAIR
from services.kit.postgres import Connection, DatabaseIdentity, identity

log = structlog.get_logger()


class HistoryChanged(RuntimeError):
    """The database is not the one that this session began with: abandon what is under way and begin anew."""


class Recovery(NamedTuple):
    """The one row about it."""

    active: bool
    reason: str
    known: DatabaseIdentity
    """The database that the ledger last knew itself to be in."""


def read(connection: Connection) -> Recovery | None:
    """None before the very first start."""
    row = connection.execute("select active, reason, system_id, timeline from recovery").fetchone()
    return Recovery(row[0], row[1], DatabaseIdentity(row[2], row[3])) if row else None


def begin_session(connection: Connection, suspect_seconds: float) -> DatabaseIdentity:
    """Which history this session writes. Enters recovery mode when the database is not the one the ledger knows itself in."""
    current = identity(connection)
    with connection.transaction():
        connection.execute(
            """insert into recovery (active, reason, system_id, timeline) values (false, 'first start', %s, %s)
               on conflict do nothing""",
            current,
        )
        # Locked, so that of several processes that start after a failover one enters and the others find it done.
        connection.execute("select from recovery for update")
        known = read(connection)
        if known is not None and known.known != current:
            enter(connection, "database", suspect_seconds)
    return current


def check_session(connection: Connection, began_with: DatabaseIdentity) -> None:
    """Raises `HistoryChanged` when a failover or a restore happened since `begin_session`. For every transaction."""
    if identity(connection) != began_with:
        raise HistoryChanged


def enter(connection: Connection, reason: str, suspect_seconds: float) -> None:
    """Enter recovery mode for good, in one transaction; entering it again starts it over.

    1. No other process may decide or drive meanwhile: both tables are locked.
    2. The lease is void: a driver that works from the lost history can neither write an intent nor record an outcome.
    3. Every seat is unknown, and suspect: a call that the lost history made may still land.
    4. Every seat has work that begins with a read.
    """
    current = identity(connection)
    with connection.transaction():
        connection.execute("set local statement_timeout = 0")
        connection.execute("lock table seat, work in exclusive mode")
        connection.execute(
            """insert into recovery (active, reason, system_id, timeline) values (true, %s, %s, %s)
               on conflict (only_row) do update set active = true, reason = excluded.reason, since = clock_timestamp(),
                                                    system_id = excluded.system_id, timeline = excluded.timeline""",
            [reason, *current],
        )
        connection.execute("delete from lease")
        seats = connection.execute(
            """update seat set applied = 'unknown', mark = mark + 1,
                               suspect_until = clock_timestamp() + %s * interval '1 second'""",
            [suspect_seconds],
        ).rowcount
        connection.execute(
            """insert into work (target, seat, tenant, person, course, state, priority, next_at, read_first)
               select target, seat, tenant, person, course, 'pending', %s, clock_timestamp(), true from seat
               on conflict (target, seat) do update
                  set state = 'pending', next_at = excluded.next_at, attempts = 0, reason = null, waits_kind = null,
                      waits_object = null, read_first = true""",
            [PRIORITY_REPAIR],
        )
        audit.record(connection, "intake", "recovery.enter", "done", {"reason": reason, "seats": seats})
    log.error("ledger_recovery_entered", reason=reason, count=seats, system_id=current.system_id, timeline=current.timeline)


def is_active(connection: Connection) -> bool:
    """Whether the ledger reads before it writes."""
    row = connection.execute("select active from recovery").fetchone()
    return bool(row and row[0])


def end_if_done(connection: Connection) -> bool:
    """Leave recovery mode once every seat has been looked at in the LMS; true when this call ended it.

    A seat that waits for a missing object or needs a person has been looked at: the answer was what stopped it. Its next write is
    preceded by a read anyway, because it is still unknown.
    """
    with connection.transaction():
        ended = connection.execute(
            """update recovery set active = false
                where active
                  and not exists (select from work where read_first and state in ('pending', 'retrying', 'suspect', 'held'))"""
        ).rowcount
        if ended:
            audit.record(connection, "intake", "recovery.end", "done", {})
    if ended:
        log.info("ledger_recovery_ended")
    return bool(ended)
