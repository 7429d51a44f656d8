"""The work table: what is ready, and the intent that is written before a call.

An intent is committed for good before its call is sent; a driver that finds it open after a crash knows that the LMS may have
been changed. Pick, intent and the check of the lease are one statement: nothing may happen between them.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg.rows import TupleRow

from services.consumer.drive.lease import BEHIND, Lease
from services.consumer.drive.orders import Order
from services.consumer.drive.scheduler import LESS_URGENT_EVERY, Line, Ready
from services.consumer.ledger.writing import is_live, live_since
from services.consumer.nouns import NEEDS_LEAVE, SATISFIED, Seat
from services.kit.postgres import Connection, text_array

_DUE = "work.state in ('pending', 'retrying', 'suspect')"
_IS_GUARDED = (
    f"(({NEEDS_LEAVE} or seat.desired <> 'active' and seat.applied = 'unknown') and work.cleared is distinct from seat.decision)"
)
_COMPANIONS = 8
"""The look at the table is bounded at so many seats per person on average."""

# All lines that have any work, by hopping through the index from one to the next; without those of terms in shadow.
_LINES = f"""
with recursive hop as (
  (select priority, term from work where target = %(target)s and {_DUE} order by priority, term limit 1)
  union all
  select next.priority, next.term
    from hop
   cross join lateral (
     select priority, term from work
      where target = %(target)s and {_DUE} and (priority, term) > (hop.priority, hop.term)
      order by priority, term limit 1) as next),
line as (
  select priority, term from hop where {is_live("%(target)s", "hop.term")})
"""  # noqa: S608  (constants of this module)

# The people whose turn it is: each line's longest due, from the index (one sort over a long backlog would cost tens of
# milliseconds), in the proportion in which the scheduler serves the lines, so that they are used up at about the same time.
_TURNS = f"""
{_LINES},
sized as materialized (
  select priority, term, least(%(limit)s, 2 * %(limit)s / count(*) over () + 8) as most from line),
found as materialized (
  select sized.*, due.person, due.next_at,
         row_number() over (partition by sized.priority, sized.term order by due.next_at) as place,
         count(*) over (partition by sized.priority, sized.term) as listed
    from sized
   cross join lateral (
     select work.person, work.next_at
       from work
      where work.target = %(target)s and work.priority = sized.priority and work.term = sized.term
        and {_DUE} and work.next_at <= now() and not work.person = any(%(blocked)s::text[])
      order by work.next_at
      limit sized.most) as due)
select priority, term, person, place, listed, most
  from found
 order by place * case when priority = (select min(priority) from found) then 1 else {LESS_URGENT_EVERY - 1} end,
          priority, next_at
 limit %(limit)s
"""  # noqa: S608  (constants of this module)

# Everything that is ready of some people, because an add may have to go before a removal. ``offset 0`` keeps the planner, which
# knows nothing of a table that was never analysed, to one index probe per person, and one per seat.
_OF_PEOPLE = f"""
 cross join lateral (
   select * from work where work.target = %(target)s and work.person = people.person offset 0) as work
 cross join lateral (
   select * from seat where seat.target = %(target)s and seat.seat = work.seat offset 0) as seat
 where {_DUE} and {is_live("work.target", "work.term")}
"""  # noqa: S608  (constants of this module)
_COLUMNS = """
select work.seat, work.person, work.course, work.priority, work.term, extract(epoch from work.next_at)::float8,
       seat.desired <> 'active'
"""
_READY = f"""
{_COLUMNS}
  from unnest(%(people)s::text[]) as people (person)
{_OF_PEOPLE} and work.next_at <= now()
 limit %(limit)s
"""
_TOLD = f"""
{_COLUMNS}, extract(epoch from work.next_at - now())::float8
  from (select distinct work.person
          from unnest(%(seats)s::text[]) as told (seat)
         cross join lateral (
           select person from work where work.target = %(target)s and work.seat = told.seat offset 0) as work) as people
{_OF_PEOPLE}
 limit %(limit)s
"""  # noqa: S608  (constants of this module)

_NEXT = f"""
{_LINES}
select extract(epoch from min(next_at) - now())::float8
  from line
 cross join lateral (
   select work.next_at from work
    where work.target = %(target)s and work.priority = line.priority and work.term = line.term
      and {_DUE} and work.next_at > now()
    order by work.next_at limit 1) as found
"""  # noqa: S608  (constants of this module)

# Rows that a deciding transaction is changing are skipped: they come back, decided, in a moment. Locking the seat as well makes
# the desired state that is read here the current one. ``offset 0`` as above. What the guard has not let through, and the removal
# of a seat that nobody has looked at, may only be read under this intent.
_OPEN = f"""
with mine as materialized (
  select from lease
   where target = %(target)s and owner = %(owner)s and epoch = %(epoch)s
     and expires_at >= clock_timestamp() + %(deadline)s * interval '1 s'
     and not exists ({BEHIND})
     for share),
due as (
  select asked.intent, work.seat, work.attempts, work.reason, work.priority, work.state, work.read_first, seat.tenant,
         seat.person, seat.section, seat.course, seat.lms_section, seat.lms_user, seat.role, seat.base_role, seat.associated_user,
         seat.desired, seat.applied, seat.origin, seat.lms_enrollment, seat.lms_course, seat.version, seat.decision, seat.mark,
         seat.applied = 'unknown' or work.read_first or coalesce(seat.suspect_until <= clock_timestamp(), false)
           or coalesce(seat.applied_at < {live_since("work.target", "work.term")}, false) or {_IS_GUARDED} as must_read,
         case when {SATISFIED} or {_IS_GUARDED} then 'read' else 'write' end as call,
         work.cleared is not distinct from seat.decision as cleared
    from unnest(%(seats)s::text[], %(intents)s::uuid[]) as asked (seat, intent)
   cross join lateral (
     select * from work where work.target = %(target)s and work.seat = asked.seat offset 0
        for no key update skip locked) as work
   cross join lateral (
     select * from seat where seat.target = work.target and seat.seat = work.seat offset 0
        for no key update skip locked) as seat
   where {_DUE} and work.next_at <= clock_timestamp() and exists (select from mine) and {is_live("work.target", "work.term")}),
opened as (
  insert into intent (target, intent, seat, tenant, person, owner, epoch, call, wanted, version, decision, mark, deadline)
  select %(target)s, intent, seat, tenant, person, %(owner)s, %(epoch)s, call, desired, version, decision, mark,
         clock_timestamp() + %(deadline)s * interval '1 s'
    from due
      on conflict do nothing
  returning intent, opened_at)
select due.intent::text, seat, tenant, person, section, course, lms_section, lms_user, role, base_role, associated_user,
       desired, applied, origin, lms_enrollment, lms_course, call, must_read, cleared, attempts, reason, priority,
       opened_at
  from due join opened on opened.intent = due.intent
"""  # noqa: S608  (constants of this module)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the work table showed."""

    rows: list[Ready]
    cut: frozenset[Line]
    """Lines that have more."""
    next_due_seconds: float | None
    """Until something else will be due by itself; None when nothing will, or when there is more to do at once."""


def look(connection: Connection, target: str, blocked: Collection[str], limit: int) -> Look:
    """A bounded look at what is due: `limit` people whose turn it is, with all that is due of them."""
    # Prepared at once: nothing in these plans depends on how long the table is, and planning them would be most of a short look.
    parameters: dict[str, object] = {"target": target, "blocked": text_array(blocked), "limit": limit}
    turns = connection.execute(_TURNS, parameters, prepare=True).fetchall()
    taken: dict[Line, tuple[int, bool]] = {}
    for priority, term, _, place, listed, most in turns:
        line = Line(priority, term)
        taken[line] = max(taken.get(line, (0, False)), (place, place < listed or listed >= most))
    cut = frozenset(line for line, (_, more) in taken.items() if more)
    rows: list[TupleRow] = []
    if turns:
        people = text_array({person for _, _, person, *_ in turns})
        parameters = {"target": target, "people": people, "limit": limit * _COMPANIONS}
        rows = connection.execute(_READY, parameters, prepare=True).fetchall()
    soon = None if cut else connection.execute(_NEXT, {"target": target}, prepare=True).fetchone()
    return Look([Ready(*row) for row in rows], cut, soon[0] if soon else None)


def look_at(connection: Connection, target: str, seats: Collection[str], limit: int) -> Look:
    """The same for the people whose seats these are, fewer than `limit`: a fraction of the cost of a look at the table."""
    parameters = {"target": target, "seats": text_array(seats), "limit": limit * _COMPANIONS}
    rows = connection.execute(_TOLD, parameters, prepare=True).fetchall()
    due = [Ready(*row) for *row, seconds in rows if seconds <= 0]
    return Look(due, frozenset(), min((seconds for *_, seconds in rows if seconds > 0), default=None))


def new_ids(count: int) -> list[str]:
    """Names for intents that are about to be written."""
    return [str(uuid.uuid4()) for _ in range(count)]


def open_intents(
    connection: Connection, lease: Lease, seats: Sequence[str], ids: Sequence[str], *, deadline_seconds: float, send_by: float
) -> list[Order]:
    """Write intents for those seats that are still due, whose person has none open, if the lease outlives their calls.

    `send_by` is a monotonic time taken before this call, so that waiting for the database only shortens what is left to send.
    """
    parameters = {
        "target": lease.target,
        "owner": lease.owner,
        "epoch": lease.epoch,
        "seats": text_array(seats),
        "intents": text_array(ids),
        "deadline": deadline_seconds,
    }
    rows = connection.execute(_OPEN, parameters).fetchall()
    return [_order(lease.target, row, send_by) for row in rows]


def _order(target: str, row: TupleRow, send_by: float) -> Order:
    """Columns in the order of `_OPEN`."""
    intent, key, *of_seat = row[:11]
    desired, applied, origin, lms_enrollment, lms_course, call, must_read, cleared, attempts, failed_as, *last = row[11:]
    priority, opened_at = last
    return Order(
        intent,
        key,
        Seat(target, *of_seat),
        desired,
        applied,
        origin,
        lms_enrollment,
        lms_course,
        call,
        must_read,
        cleared,
        attempts,
        failed_as,
        priority,
        opened_at,
        send_by,
    )
