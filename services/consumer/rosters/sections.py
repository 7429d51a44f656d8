"""The sections of a comparison: which are to be read next, those that cannot be, and its end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from services.kit.postgres import Connection

HoldsLease = Callable[[Connection], bool]
"""Whether the lease is ours; locks it until the transaction ends."""
_ATTEMPTS = 8
"""Then the comparison goes on without the section."""


class Section(NamedTuple):
    """One section whose roster is to be read."""

    run: UUID
    lms_section: str
    tenant: str
    section: str
    """Section key text."""
    attempts: int
    began_at: datetime
    """By the database's clock, before the first call."""
    quiet_since: datetime
    """What the LMS shows of a seat that was confirmed later may still be what was before."""


class Ended(NamedTuple):
    """A comparison that came to its end."""

    run: UUID
    failed: int
    """Sections that could not be read."""


_DUE = """
select run, lms_section, tenant, section, attempts, clock_timestamp(),
       clock_timestamp() - %(quiet)s * interval '1 s'
  from roster_section join roster_run using (target, run)
 where target = %(target)s and roster_run.state = 'running' and roster_section.state = 'open' and next_at <= clock_timestamp()
 order by next_at, lms_section limit %(limit)s
"""
_END = """
update roster_run set state = 'done', finished_at = clock_timestamp()
 where target = %(target)s and state = 'running'
   and not exists (select from roster_section as section
                    where (section.target, section.run) = (roster_run.target, roster_run.run) and section.state = 'open')
returning run, (select count(*)::int from roster_section as section
                where (section.target, section.run) = (roster_run.target, roster_run.run) and section.state = 'failed')
"""
_CLOSE = """
update roster_section set state = %(state)s, code = %(code)s, read_at = %(read_at)s
 where target = %(target)s and run = %(run)s and lms_section = %(lms_section)s and state = 'open'
"""
_PUT_OFF = """
update roster_section
   set attempts = attempts + %(counts)s::int, next_at = clock_timestamp() + %(delay)s * interval '1 s', code = %(code)s,
       state = case when attempts + %(counts)s::int >= %(most)s then 'failed' else 'open' end
 where target = %(target)s and run = %(run)s and lms_section = %(lms_section)s and state = 'open'
"""
# A difference that was given to the driver is over when the seat is as wanted.
_CURED = """
delete from roster_finding using seat
 where roster_finding.target = %s and repair_at is not null
   and (seat.target, seat.seat) = (roster_finding.target, roster_finding.seat)
   and seat.applied_at > repair_at and not exists (select from work where (work.target, work.seat) = (seat.target, seat.seat))
"""


def is_running(connection: Connection, target: str) -> bool:
    """Whether there is a comparison at all: asked every other second by every driver."""
    return connection.execute("select from roster_run where target = %s and state = 'running'", [target]).fetchone() is not None


def due(connection: Connection, target: str, limit: int, quiet_seconds: float) -> list[Section]:
    """Sections to read now. The LMS may answer from a copy of itself, and a call may land late: both within `quiet_seconds`."""
    rows = connection.execute(_DUE, {"target": target, "limit": limit, "quiet": quiet_seconds}).fetchall()
    return [Section(*row) for row in rows]


def missing(connection: Connection, target: str, section: Section, holds_lease: HoldsLease) -> None:
    """The LMS has no such section: nothing is said of its seats, which wait for it, and nothing stands of it any more."""
    with connection.transaction():
        if holds_lease(connection):
            place = {"target": target, "run": section.run, "lms_section": section.lms_section}
            connection.execute(_CLOSE, place | {"state": "missing", "code": None, "read_at": section.began_at})
            connection.execute("delete from roster_finding where target = %s and lms_section = %s", [target, section.lms_section])


def put_off(
    connection: Connection,
    target: str,
    section: Section,
    code: str,
    delay_seconds: float,
    holds_lease: HoldsLease,
    *,
    counts: bool,
) -> None:
    """Read it later; after eight attempts that `counts`, not in this comparison."""
    with connection.transaction():
        if holds_lease(connection):
            place = {"target": target, "run": section.run, "lms_section": section.lms_section}
            connection.execute(_PUT_OFF, place | {"code": code, "delay": delay_seconds, "counts": counts, "most": _ATTEMPTS})


def end_if_done(connection: Connection, target: str, holds_lease: HoldsLease) -> Ended | None:
    """End the comparison when no section is left to be read."""
    with connection.transaction():
        row = connection.execute(_END, {"target": target}).fetchone() if holds_lease(connection) else None
        return Ended(*row) if row else None


def forget_cured(connection: Connection, target: str) -> int:
    """Drop differences that the driver has undone; how many."""
    return connection.execute(_CURED, [target]).rowcount
