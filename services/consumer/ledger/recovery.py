"""Recovery mode: what the ledger does when it learns that it has lost history (a restore, a promotion, an empty database).

What the LMS was told after the point that the ledger remembers is forgotten, so nothing it believes about a seat can be trusted:
every seat is unknown and suspect, nobody holds a lease, and the first write to a seat is preceded by a read. What the ledger
wants of a seat may be old as well, so that nothing is written at all until the log has been read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import structlog

from schemas.returns import Scope
from services.consumer.ledger import audit, digests, offsets
from services.consumer.ledger.offsets import LogPartition
from services.consumer.ledger.writing import is_live
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
    since: datetime
    log_lost: bool
    """The log under the ledger lost something: only the mirror knows what, so the two have to be compared."""
    behind: bool
    """The ledger itself lost something, and has not read the log again: what it wants of a seat may be old."""


class Witness:
    """What this process has seen of the ledger for certain. From any thread.

    A database that was restored from a copy of its files is the same one to itself, with the same timeline. Whoever was there
    before knows better: the ledger's counter never goes back.
    """

    def __init__(self) -> None:
        self.activity = 0

    def saw(self, activity: int) -> None:
        """The counter's value, in a transaction that is on disk: a crash may undo others."""
        self.activity = max(self.activity, activity)


def read(connection: Connection) -> Recovery | None:
    """None before the very first start."""
    row = connection.execute("select active, reason, system_id, timeline, since, log_lost, behind from recovery").fetchone()
    return Recovery(row[0], row[1], DatabaseIdentity(row[2], row[3]), *row[4:]) if row else None


def is_at_home(connection: Connection) -> bool:
    """Whether the database is the one that the ledger knows itself in; otherwise recovery mode is about to be entered."""
    known = read(connection)
    return known is None or known.known == identity(connection)


def begin_session(connection: Connection, suspect_seconds: float, witness: Witness | None = None) -> DatabaseIdentity:
    """Which history this session writes; for every new connection that writes.

    Enters recovery mode when the database is not the one the ledger knows itself in, or has counted less than `witness` saw. A
    session cannot outlive its history: a promotion and a restore end every connection, and a standby takes none of ours.
    """
    current = identity(connection)
    seen = witness.activity if witness else 0
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
        elif offsets.last_activity(connection) < seen:
            enter(connection, "activity", suspect_seconds)
    # After the commit, because it takes effect at once: until then it is the evidence.
    offsets.count_from(connection, seen)
    return current


def check_session(connection: Connection, began_with: DatabaseIdentity) -> None:
    """Raises `HistoryChanged` when a failover or a restore happened since `begin_session`. For every transaction."""
    if identity(connection) != began_with:
        raise HistoryChanged


def enter(connection: Connection, reason: str, suspect_seconds: float, *, log_lost: bool = False, behind: bool = True) -> None:
    """Enter recovery mode for good, in one transaction; entering it again starts it over.

    `behind`: the ledger lost history. `log_lost`: the log did; a ledger that had read it all is not behind.

    1. No other process may decide or drive meanwhile: both tables are locked.
    2. The lease is void: a driver that works from the lost history can neither write an intent nor record an outcome. Nobody gets
       it while the ledger is behind.
    3. Every seat is unknown, and suspect: a call that the lost history made may still land.
    4. Every seat has work that begins with a read. Removals that a person has to approve stay held: they are read, like every
       unknown seat, when they are let go.
    5. When the log is what lost something (`log_lost`), the publisher is asked to emit the current state of everything again.
    """
    current = identity(connection)
    with connection.transaction():
        connection.execute("set local statement_timeout = 0")
        connection.execute("lock table seat, work in exclusive mode")
        connection.execute(
            """insert into recovery as old (active, reason, system_id, timeline, log_lost, behind)
               values (true, %s, %s, %s, %s, %s)
               on conflict (only_row) do update set active = true, reason = excluded.reason, since = clock_timestamp(),
                                                    system_id = excluded.system_id, timeline = excluded.timeline,
                                                    log_lost = excluded.log_lost or (old.active and old.log_lost),
                                                    behind = excluded.behind or (old.active and old.behind)""",
            [reason, *current, log_lost, behind],
        )
        if log_lost:
            digests.request_republish(connection, Scope(all=True), reason)
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
                  set state = case when work.state = 'held' then 'held' else 'pending' end, next_at = excluded.next_at,
                      attempts = 0, reason = null, waits_kind = null, waits_object = null, read_first = work.state <> 'held'""",
            [PRIORITY_REPAIR],
        )
        audit.record(connection, "intake", "recovery.enter", "done", {"reason": reason, "seats": seats})
    log.error("ledger_recovery_entered", reason=reason, count=seats, system_id=current.system_id, timeline=current.timeline)


def is_active(connection: Connection) -> bool:
    """Whether the ledger reads before it writes."""
    row = connection.execute("select active from recovery").fetchone()
    return bool(row and row[0])


def catch_up(connection: Connection, since: datetime, ends: Mapping[LogPartition, int]) -> bool:
    """Whether the ledger is no longer behind: it has read up to `ends`, where the log ended after recovery began at `since`.

    When the log has lost something too, reading it is not enough: a complete round of the mirror's digests must have left no
    difference.
    """
    if not digests.passed(connection, ends):
        return False
    caught = connection.execute(
        "update recovery set behind = false where active and behind and since = %s and (not log_lost or %s)",
        [since, digests.reconciled(connection)],
    ).rowcount
    return bool(caught)


def end_if_done(connection: Connection) -> bool:
    """Leave recovery mode once the log has been read again, and every seat looked at in the LMS; true when this call ended it.

    When the log lost something, also a complete round of the mirror's digests must have left no difference.

    A seat that waits for a missing object or needs a person has been looked at: the answer was what stopped it. Its next write is
    preceded by a read anyway, because it is still unknown. One whose term is in shadow is not written to at all.
    """
    with connection.transaction():
        ended = connection.execute(
            f"""update recovery set active = false, log_lost = false, ended_at = clock_timestamp()
                 where active and not behind
                   and (not log_lost or %s)
                   and not exists (select from work
                                    where read_first and state in ('pending', 'retrying', 'suspect', 'guarded')
                                      and {is_live("work.target", "work.term")})""".encode(),  # noqa: S608  (a constant of ours)
            [digests.reconciled(connection)],
        ).rowcount
        if ended:
            audit.record(connection, "intake", "recovery.end", "done", {})
    if ended:
        log.info("ledger_recovery_ended")
    return bool(ended)
