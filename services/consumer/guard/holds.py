"""Holds and announced changes, as people see and decide them. Every function runs in the caller's audited transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from services.consumer.guard import reading
from services.consumer.guard.judging import ScopeKind, Window
from services.consumer.guard.writing import lock
from services.consumer.ledger import section_courses
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import SeatState
from services.kit.postgres import Connection

SECOND_WITHIN = timedelta(hours=4)
"""The first of two approvals counts for so long: then nobody remembers what was looked at."""

HoldState = Literal["open", "approved", "discarded", "emptied"]
"""`discarded`: a person said no, the removals stay held; `emptied`: all of them were taken back by the student system."""


class Hold(NamedTuple):
    """What needs a person: removals of one scope, or access to a section whose number was re-used."""

    hold: int
    tenant: str
    scope: ScopeKind
    key: str
    window: Window | None
    removals: int
    """When the hold was opened, with those that had gone before ..."""
    active: int
    """... of so many seats that gave access."""
    allowed: str
    """The limit that was reached, as the policy writes it."""
    state: HoldState
    opened_at: datetime
    closed_at: datetime | None
    approved: int
    """Removals that a person let go."""
    held: int
    """Removals that are in it now."""
    snapshot: int
    """The newest of them. What is approved by this number is what was there to be seen; 0 when nothing is."""
    gained: int
    """Seats in its scope that were given in the 15 minutes before it was opened: a renamed id gives as many as it takes."""
    was_course: str | None
    """Of a re-used number: the course whose class it stood for, as the SIS writes it ..."""
    is_course: str | None
    """... and the one whose class it stands for. Who is held would be let in."""
    first_actor: str | None
    """Who has approved it and needs somebody else to do so as well; None: nobody, or too long ago."""
    first_snapshot: int | None
    """What they had seen."""
    first_lapses_at: datetime | None
    """Until when that counts."""


class Member(NamedTuple):
    """One removal in a hold."""

    number: int
    tenant: str
    person: str
    section: str
    role: str
    desired: SeatState
    held_since: datetime


class Decided(NamedTuple):
    """What approving did."""

    approved: int
    left: int
    """Removals that came after the snapshot; they stay held."""


class Awaited(NamedTuple):
    """So many removals need a second person; nothing was let go yet."""

    until: datetime
    """By then, or the first has to approve once more."""


class Standing(NamedTuple):
    """The guard of a target, for gauges."""

    holds: int
    oldest_seconds: float
    paused: bool


class Announced(NamedTuple):
    """A change that was announced."""

    planned: UUID
    tenant: str
    scope: str
    key: str
    from_at: datetime
    until_at: datetime
    most: int
    used: int
    reason: str
    actor: str


_HOLDS = """
select hold.hold, hold.tenant, hold.scope, hold.key, hold."window", hold.removals, hold.active, hold.allowed, hold.state,
       hold.opened_at, hold.closed_at, hold.approved, member.held, member.snapshot, hold.gained,
       hold.was_course, hold.is_course,
       first.first_actor, first.first_snapshot, first.first_lapses_at
  from hold
  left join lateral (
    select hold.first_actor, hold.first_snapshot, hold.first_lapses_at
     where hold.first_lapses_at > clock_timestamp()) as first on true
 cross join lateral (
   select count(*)::int as held, coalesce(max(hold_number), 0) as snapshot
     from work where work.target = hold.target and work.hold = hold.hold and work.state = 'held') as member
 where hold.target = %(target)s
"""
_MEMBERS = """
select work.hold_number, seat.tenant, seat.person, seat.section, seat.role, seat.desired, work.state_since
  from work join seat using (target, seat)
 where work.target = %s and work.hold = %s and work.state = 'held' and work.hold_number > %s
 order by work.hold_number limit %s
"""
# Locked in the order in which everybody locks them. `cleared` binds to the decision: one that is made later is judged anew.
# Access is not cleared, as its section was agreed to: should the number be given away once more, who has not got in waits again.
# The next round of the guard makes them ready, unless removals are paused.
_CHOOSE = """
select seat.seat from seat
 where target = %(target)s and seat in (
   select seat from work
    where target = %(target)s and hold = %(hold)s and state = 'held' and hold_number <= %(snapshot)s)
 order by target, seat for no key update
"""
_APPROVE = """
with chosen as materialized (
  select seat from work
   where target = %(target)s and hold = %(hold)s and state = 'held' and hold_number <= %(snapshot)s
   order by target, seat for update),
released as (
  update work
     set state = 'guarded', cleared = case when seat.desired <> 'active' then seat.decision end, hold = null, hold_number = null,
         next_at = clock_timestamp()
    from chosen join seat on seat.target = %(target)s and seat.seat = chosen.seat
   where work.target = %(target)s and work.seat = chosen.seat
  returning seat.target, seat.seat, seat.tenant, seat.person, seat.section, seat.course, seat.version, seat.decision,
            seat.desired),
counted as (
  insert into removal (target, seat, decision, tenant, section, course, leaves_course, how)
  select target, seat, decision, tenant, section, course, true, 'approved' from released where desired <> 'active')
insert into history (tenant, person, section, target, seat, what, version, detail)
select tenant, person, section, target, seat, 'approved', version,
       jsonb_build_object('hold', %(hold)s::bigint, 'decision', decision, 'actor', %(actor)s::text)
  from released
"""
_SOMETHING_COMES_BACK = "select from work where target = %s and hold = %s and state = 'guarded' limit 1"
"""What was decided anew, and has not rejoined the hold yet."""
_COUNT_APPROVED = "update hold set approved = approved + %s where target = %s and hold = %s"
_SEEN = "select count(*) from work where target = %s and hold = %s and state = 'held' and hold_number <= %s"
_FIRST = """
update hold set first_actor = %s, first_snapshot = %s, first_lapses_at = clock_timestamp() + %s
 where target = %s and hold = %s returning first_lapses_at
"""
_FORGET_FIRST = """
update hold set first_actor = null, first_snapshot = null, first_lapses_at = null where target = %s and hold = %s
"""
_CLOSE = """
update hold set state = %s, closed_at = clock_timestamp() where target = %s and hold = %s and state in ('open', 'discarded')
"""


class Over(Exception):
    """The hold was decided already, or nothing is in it any more."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class UnknownSnapshot(Exception):
    """Nobody can have seen it: nothing with so high a number is in the hold."""


class SamePerson(Exception):
    """Whoever approved it first approves it again: that makes one person, not two."""


def find(connection: Connection, target: str, *, undecided: bool, after: int | None, limit: int) -> list[Hold]:
    """Holds, the newest first, below the number `after`; only the open ones if `undecided`."""
    rows = connection.execute(
        _HOLDS.encode()
        + b""" and (not %(undecided)s or hold.state = 'open') and hold.hold < coalesce(%(after)s::bigint, hold.hold + 1)
               order by hold.hold desc limit %(limit)s""",
        {"target": target, "undecided": undecided, "after": after, "limit": limit},
    ).fetchall()
    return [Hold(*row) for row in rows]


def read(connection: Connection, target: str, hold: int) -> Hold | None:
    """One hold."""
    row = connection.execute(_HOLDS.encode() + b" and hold.hold = %(hold)s", {"target": target, "hold": hold}).fetchone()
    return Hold(*row) if row else None


def standing(connection: Connection, target: str) -> Standing:
    """How many holds are open, since when the oldest is, and whether removals are paused."""
    row = connection.execute(
        """select count(*), coalesce(extract(epoch from clock_timestamp() - min(opened_at)), 0)::float8,
                  exists (select from guard where guard.target = %(target)s and paused)
             from hold where target = %(target)s and state = 'open'""",
        {"target": target},
    ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return Standing(*row)


def members(connection: Connection, target: str, hold: int, after: int, limit: int) -> list[Member]:
    """A page of the removals in a hold, in the order in which they were held, behind the number `after`."""
    return [Member(*row) for row in connection.execute(_MEMBERS, [target, hold, after, limit]).fetchall()]


def approve(connection: Connection, policies: Policies, hold: int, snapshot: int, actor: str) -> Decided | Awaited | None:
    """Let go what was in the hold when its snapshot was `snapshot`, and has not been decided anew since; None: no such hold.

    Above the policy's `two_people_above` it takes two people, and what both have seen goes. The hold is closed when nothing is
    left in it, or about to rejoin it. One that was discarded may be approved after all. Of a re-used number the section is
    approved: everybody in the hold is let in, and whoever comes later. Raises `Over`, `UnknownSnapshot` and `SamePerson`.
    """
    target = policies.target
    lock(connection, target)
    found = read(connection, target, hold)
    if found is None:
        return None
    if found.held == 0:
        raise Over(found.state if found.state != "open" else "emptied")
    if snapshot > found.snapshot:
        raise UnknownSnapshot
    if _needs_two(connection, policies, found, snapshot):
        if found.first_actor is None or found.first_snapshot is None:
            return _approve_first(connection, target, hold, snapshot, actor)
        if found.first_actor == actor:
            raise SamePerson
        snapshot = min(snapshot, found.first_snapshot)
    if found.scope == "reused_section":
        if not section_courses.agree(connection, found.tenant, found.key, found.is_course):
            raise Over("emptied")  # in a moment: whoever is in it waits for another class than was looked at, or for none
        snapshot = found.snapshot
    parameters = {"target": target, "hold": hold, "snapshot": snapshot, "actor": actor}
    connection.execute(_CHOOSE, parameters)
    approved = connection.execute(_APPROVE, parameters).rowcount
    connection.execute(_COUNT_APPROVED, [approved, target, hold])
    connection.execute(_FORGET_FIRST, [target, hold])
    left = found.held - approved
    if left == 0 and connection.execute(_SOMETHING_COMES_BACK, [target, hold]).fetchone() is None:
        connection.execute(_CLOSE, ["approved", target, hold])
    return Decided(approved, left)


def _needs_two(connection: Connection, policies: Policies, hold: Hold, snapshot: int) -> bool:
    """Whether these removals are more than one person may let go; those that went before count, so that slices do not help."""
    most = reading.rules(connection, policies, hold.tenant).two_people_above
    if most is None:
        return False
    row = connection.execute(_SEEN, [policies.target, hold.hold, snapshot]).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return hold.approved + int(row[0]) > most


def _approve_first(connection: Connection, target: str, hold: int, snapshot: int, actor: str) -> Awaited:
    row = connection.execute(_FIRST, [actor, snapshot, SECOND_WITHIN, target, hold]).fetchone()
    assert row is not None  # noqa: S101  (read and locked before)
    return Awaited(row[0])


def discard(connection: Connection, target: str, hold: int) -> Hold | None:
    """Say no: its removals stay held until the student system says otherwise or somebody approves them after all. None: no such
    hold. Raises `Over`."""
    lock(connection, target)
    found = read(connection, target, hold)
    if found is None:
        return None
    if found.state != "open":
        raise Over(found.state)
    connection.execute(_CLOSE, ["discarded", target, hold])
    connection.execute(_FORGET_FIRST, [target, hold])
    return found


def pause(connection: Connection, target: str, reason: str | None) -> None:
    """Let no removal go until told otherwise, not even those that were let through and are not sent yet; None lets them go on."""
    lock(connection, target)
    connection.execute("update guard set paused = %s, paused_reason = %s where target = %s", [reason is not None, reason, target])


def paused(connection: Connection, target: str) -> str | None:
    """Why no removal is let through; None while they are."""
    row = connection.execute("select paused_reason from guard where target = %s and paused", [target]).fetchone()
    return None if row is None else str(row[0])


def announce(
    connection: Connection,
    target: str,
    planned: UUID,
    tenant: str,
    scope: str,
    key: str,
    window: tuple[datetime, datetime],
    most: int,
    reason: str,
    actor: str,
) -> None:
    """Removals in this scope and time are expected, so many at most."""
    connection.execute(
        """insert into planned_change (target, planned, tenant, scope, key, from_at, until_at, most, reason, actor)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        [target, planned, tenant, scope, key, *window, most, reason, actor],
    )


def announced(connection: Connection, target: str, limit: int) -> Sequence[Announced]:
    """What was announced and is not over, the newest first."""
    rows = connection.execute(
        """select planned, tenant, scope, key, from_at, until_at, most, used, reason, actor
             from planned_change
            where target = %s and withdrawn_at is null and until_at > clock_timestamp() order by created_at desc limit %s""",
        [target, limit],
    ).fetchall()
    return [Announced(*row) for row in rows]


def withdraw(connection: Connection, target: str, planned: UUID) -> bool:
    """Take an announcement back; what it has let through stays gone. False: there is none that is not over."""
    lock(connection, target)
    return (
        connection.execute(
            """update planned_change set withdrawn_at = clock_timestamp()
                where (target, planned) = (%s, %s) and withdrawn_at is null and until_at > clock_timestamp()""",
            [target, planned],
        ).rowcount
        == 1
    )
