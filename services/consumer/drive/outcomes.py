"""Recording what came of an attempt: the intent closed, the seat as the LMS confirmed it, its work gone or due again.

One transaction for many seats, in this order: the lease (locked: a take-over waits), the seats (locked, sorted), the missing
objects (locked), then everything in one statement, whose snapshot is younger than the locks. It may be lost in a crash of the
database: the intent, which may not, makes the next driver read before it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from services.consumer.drive import waiting
from services.consumer.drive.lease import HOLDS, Lease
from services.consumer.drive.reactions import Settlement
from services.consumer.nouns import NEEDS_LEAVE, PRIORITY_REPAIR, PRIORITY_SUSPECT, SATISFIED, Effect
from services.kit.postgres import Connection, text_array


class LeaseLost(RuntimeError):
    """Another driver has the target, or had it since: nothing of ours may be recorded as fact."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the ledger made of a settlement, looking at what is wanted *now*."""

    intent: str
    settled: bool
    """No work is left."""
    ready: bool
    """Work is due at once."""
    dead: bool
    confirmed: Effect | None
    """The decision asked for was confirmed for the first time; None otherwise."""
    age_seconds: float
    """Since the publisher accepted the change behind the seat."""


# ``offset 0`` keeps a planner that knows nothing of the table to one probe of an index for each seat.
_LOCK_SEATS = """
select from (select seat from unnest(%(seats)s::text[]) as told (seat) order by seat) as told
 cross join lateral (
   select from seat where seat.target = %(target)s and seat.seat = told.seat offset 0 for no key update) as locked
"""

_COLUMNS = {
    "intent": "uuid",
    "outcome": "text",
    "next": "text",
    "delay": "float8",
    "attempts": "int",
    "applied": "text",
    "lms_enrollment": "text",
    "lms_course": "text",
    "origin": "text",
    "touched": "boolean",
    "late": "boolean",
    "read": "boolean",
    "looked": "boolean",
    "waits_kind": "text",
    "waits_object": "text",
    "priority": "smallint",
    "detail": "jsonb",
}
_INPUT = ", ".join(f"%({name})s::{kind}[]" for name, kind in _COLUMNS.items())
_WILL_SATISFY = SATISFIED.replace("seat.applied", "coalesce(closed.applied, seat.applied)")

# `closed`: only a settlement whose intent is still open counts, so that recording twice cannot undo what came between.
#   It names the intents twice, so that no plan, made while there were few, reads all that a day has left.
# `after`: a suspect seat is cleared only by a read that began after its time, saw the same number of unknown calls, and was
#   followed by no change; every change starts the time anew.
# `verdict`: judged by what is desired now, not by what the attempt was for. A decision made meanwhile has set the work row as
#   it wants it; then the row is left alone unless the seat is as wanted already. A seat of which nobody knows what it is goes
#   before all others; one that a recovery or a verification doubts, with all the rest of the ledger, keeps its place.
#   What turns out to be the guard's to allow, and was never let through, is for the guard to judge.
_RECORD = f"""
with input as (
  select * from unnest({_INPUT}) as input ({", ".join(_COLUMNS)})),
closed as (
  update intent set closed_at = clock_timestamp(), outcome = input.outcome
    from input
   where intent.target = %(target)s and intent.intent = input.intent and intent.intent = any(%(intent)s::uuid[])
     and intent.closed_at is null and intent.owner = %(owner)s and intent.epoch = %(epoch)s
  returning intent.seat, intent.decision as asked, intent.mark as seen_mark, intent.opened_at, input.*),
before as (
  select seat.seat, seat.applied_version, coalesce(work.read_first, false) and not closed.looked as must_verify,
         work.cleared is not distinct from seat.decision as cleared
    from closed
    join seat on seat.target = %(target)s and seat.seat = closed.seat
    left join work on work.target = %(target)s and work.seat = closed.seat),
after as (
  update seat
     set applied = coalesce(closed.applied, seat.applied),
         applied_at = case when closed.applied is null then seat.applied_at else clock_timestamp() end,
         applied_version = case when {_WILL_SATISFY} then seat.version else seat.applied_version end,
         lms_enrollment = coalesce(closed.lms_enrollment, seat.lms_enrollment),
         lms_course = coalesce(closed.lms_course, seat.lms_course),
         origin = coalesce(seat.origin, closed.origin),
         mark = seat.mark + closed.late::int,
         suspect_until = case
           when closed.late or (closed.touched and seat.suspect_until is not null)
             then clock_timestamp() + %(suspect_seconds)s * interval '1 s'
           when closed.read and closed.opened_at >= seat.suspect_until and closed.seen_mark = seat.mark then null
           else seat.suspect_until end
    from closed
   where seat.target = %(target)s and seat.seat = closed.seat
  returning seat.target, seat.seat, seat.tenant, seat.person, seat.section, seat.course, seat.version, seat.effect,
            seat.accepted_at, seat.suspect_until, seat.fence, {SATISFIED} as satisfied, {NEEDS_LEAVE} as needs_leave,
            closed.asked = seat.decision as same,
            closed.intent, closed.outcome, closed.next, closed.delay, closed.attempts, closed.waits_kind, closed.waits_object,
            closed.priority, closed.late, closed.detail),
verdict as (
  select after.*,
         satisfied and suspect_until is null and fence is null and not must_verify as settled,
         case when satisfied then case when suspect_until is null then 'pending' else 'suspect' end
              when next = 'retry' then 'retrying'
              when next = 'wait' then 'waiting'
              when next = 'dead' then 'dead'
              when needs_leave and not cleared then 'guarded'
              else 'pending' end as work_state,
         case when late or (satisfied and suspect_until is not null and priority < {PRIORITY_REPAIR}) then {PRIORITY_SUSPECT}
              else priority end as turn,
         case when not satisfied then clock_timestamp() + delay * interval '1 s'
              when suspect_until is not null then suspect_until
              when must_verify then clock_timestamp()
              else clock_timestamp() + %(fence_seconds)s * interval '1 s' end as due,
         must_verify, cleared,
         satisfied and same and before.applied_version is distinct from after.version as first_time
    from after join before on before.seat = after.seat),
gone as (
  delete from work using verdict where work.target = %(target)s and work.seat = verdict.seat and settled),
kept as (
  insert into work (target, seat, tenant, person, course, state, priority, next_at, attempts, reason, code, read_first,
                    waits_kind, waits_object)
  select target, seat, tenant, person, course, work_state, turn, due, case when satisfied then 0 else attempts end,
         case when not satisfied then outcome end, case when not satisfied then detail ->> 'code' end, must_verify,
         case when work_state = 'waiting' then waits_kind end, case when work_state = 'waiting' then waits_object end
    from verdict where not settled and (same or satisfied)
      on conflict (target, seat) do update
     set state = excluded.state, priority = excluded.priority, next_at = excluded.next_at, attempts = excluded.attempts,
         reason = excluded.reason, code = excluded.code, read_first = excluded.read_first,
         waits_kind = excluded.waits_kind, waits_object = excluded.waits_object),
restored as (
  insert into work as old (target, seat, tenant, person, course, state, priority, next_at)
  select target, seat, tenant, person, course, case when needs_leave and not cleared then 'guarded' else 'pending' end, turn,
         clock_timestamp()
    from verdict where not same and not satisfied
      on conflict (target, seat) do update set state = 'guarded' where old.state = 'pending' and excluded.state = 'guarded'),
told as (
  insert into history (tenant, person, section, target, seat, what, version, detail)
  select tenant, person, section, target, seat, what, version, detail
    from verdict
   cross join lateral (values ('outcome'),
                              (case when settled then 'settled'
                                    when same and work_state in ('waiting', 'dead') then work_state end)) as row (what)
   where what is not null),
counted as materialized (
  select nextval('activity'))
select intent::text, settled, not settled and work_state in ('pending', 'retrying') and due <= clock_timestamp(),
       same and work_state = 'dead', case when first_time then effect end,
       extract(epoch from clock_timestamp() - accepted_at)::float8
  from verdict cross join counted
"""  # noqa: S608  (constants of this module)
_FENCE_SECONDS = 60
"""A fenced seat is looked at so often; nothing ends a fence sooner than its import."""

# The seat of a call whose maker lost the lease: what it did is unknown to whoever drives now.
_SUSPECT = """
with marked as (
  update seat
     set applied = 'unknown', mark = mark + 1, suspect_until = clock_timestamp() + %(suspect_seconds)s * interval '1 s'
   where target = %(target)s and seat = any(%(seats)s::text[])
  returning target, seat, tenant, person, section, course, version),
told as (
  insert into history (tenant, person, section, target, seat, what, version, detail)
  select tenant, person, section, target, seat, 'outcome', version, jsonb_build_object('outcome', %(reason)s::text)
    from marked)
insert into work as old (target, seat, tenant, person, course, state, priority, next_at)
select target, seat, tenant, person, course, 'pending', %(priority)s, clock_timestamp() from marked
    on conflict (target, seat) do update
   set state = 'pending', priority = excluded.priority, next_at = least(old.next_at, clock_timestamp()),
       waits_kind = null, waits_object = null
 where old.state in ('pending', 'retrying', 'waiting', 'suspect')
"""


def record(
    connection: Connection, lease: Lease, settlements: Sequence[Settlement], *, suspect_seconds: float
) -> dict[str, Recorded]:
    """Record settlements, by intent; one whose intent is not open any more is left out. `LeaseLost`: nothing was recorded."""
    with connection.transaction():
        if connection.execute(HOLDS, {"target": lease.target, "owner": lease.owner, "epoch": lease.epoch}).fetchone() is None:
            raise LeaseLost
        lock_seats(connection, lease.target, [settlement.order.key for settlement in settlements])
        settled = waiting.settle_waits(connection, lease.target, settlements)
        rows = connection.execute(_RECORD, _parameters(lease, settled, suspect_seconds)).fetchall()
        recorded = {row[0]: Recorded(*row) for row in rows}
        lost = [each.order.key for each in settled if each.touched and each.order.intent not in recorded]
        if lost:
            # Their intents are gone or closed: by our own earlier commit, or with the history of a database that was replaced.
            mark_suspect(connection, lease.target, sorted(lost), reason="intent_gone", suspect_seconds=suspect_seconds)
    return recorded


def mark_suspect(connection: Connection, target: str, seats: Sequence[str], *, reason: str, suspect_seconds: float) -> None:
    """Say that these seats may have been changed, and by whom nobody knows: the only thing that a driver without the lease may
    write, and what a new driver does with the calls it inherits. They are read before they are written, and again later."""
    with connection.transaction():
        lock_seats(connection, target, seats)
        parameters = {
            "target": target,
            "seats": text_array(seats),
            "reason": reason,
            "suspect_seconds": suspect_seconds,
            "priority": PRIORITY_SUSPECT,
        }
        connection.execute(_SUSPECT, parameters)


def lock_seats(connection: Connection, target: str, seats: Sequence[str]) -> None:
    """Lock them in the order in which everybody does."""
    connection.execute(_LOCK_SEATS, {"target": target, "seats": text_array(seats)})


def _parameters(lease: Lease, settlements: Sequence[Settlement], suspect_seconds: float) -> dict[str, object]:
    columns = list(zip(*(_row(settlement) for settlement in settlements), strict=True))
    arrays = {name: text_array(column) for name, column in zip(_COLUMNS, columns, strict=True)}
    return arrays | {
        "target": lease.target,
        "owner": lease.owner,
        "epoch": lease.epoch,
        "suspect_seconds": suspect_seconds,
        "fence_seconds": _FENCE_SECONDS,
    }


def _row(settlement: Settlement) -> tuple[str | None, ...]:
    """The values of `_COLUMNS`."""
    waits_kind, waits_object = settlement.waits or (None, None)
    return (
        settlement.order.intent,
        settlement.outcome,
        settlement.then,
        str(settlement.delay_seconds),
        str(settlement.attempts),
        settlement.applied,
        settlement.lms_enrollment,
        settlement.lms_course,
        settlement.origin,
        str(settlement.touched),
        str(settlement.late),
        str(settlement.read),
        str(settlement.looked),
        waits_kind,
        waits_object,
        str(settlement.order.priority),
        orjson.dumps(_detail(settlement)).decode(),
    )


def _detail(settlement: Settlement) -> dict[str, object]:
    """For the timeline: what was asked, what was seen, what came of it, and what it cost."""
    order = settlement.order
    return {
        "intent": order.intent,
        "call": order.call,
        "wanted": order.desired,
        "outcome": settlement.outcome,
        "code": settlement.code,
        "before": settlement.before,
        "applied": settlement.applied,
        "lms_enrollment": settlement.lms_enrollment,
        "waits_for": settlement.waits[0] if settlement.waits else None,
        "ms": round(settlement.seconds * 1000, 1),
        "cost": settlement.cost,
    }
