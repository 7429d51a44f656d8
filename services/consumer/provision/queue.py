"""The rows of objects: which are due, what is begun with one, and what came of it.

Before a call that changes something its row says so, in a statement that asks whether the lease outlives the call, whether the
place may be written to, and whether nothing new was heard meanwhile. A row that still says so after its time was left by a driver
that died: what it sent may have been carried out, so the object is suspect. Every attempt reads first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from schemas.keys import EntityKey
from services.consumer.drive.lease import BEHIND, Lease, holding
from services.consumer.ledger import history
from services.consumer.ledger.history import Happening
from services.consumer.nouns import PRIORITY_REPAIR, TERM, ObjectKind
from services.consumer.provision import shadowing
from services.consumer.provision.merging import last_heir
from services.consumer.provision.shadowing import LIVE
from services.consumer.provision.steps import Known, Verdict
from services.consumer.provision.wanting import Subject, Told, named_after
from services.consumer.targets.objects import Attribute
from services.kit.postgres import Connection, text_array

UNTOLD_SECONDS = 300.0
"""What the SIS has not told is looked for again after this, should its event have been missed."""
ANOTHER_CLASS_SECONDS = 60.0
"""What was wanted for a class that does not take place may be wanted for another one by then."""
_AT_ONCE = 100
_TERM = "split_part(other.section, '/', 1) || '/' || split_part(other.section, '/', 2)"
_LEFT = """
update lms_object
   set making = making or call = 'make', suspect_until = clock_timestamp() + %(doubt)s * interval '1 s', call = null,
       call_until = null
 where target = %(target)s and call_until < clock_timestamp()
"""


def _due(which: str) -> bytes:
    return f"""
select {LIVE}, object.kind, object.object, object.tenant, object.key, object.section, object.person, object.heard,
       object.attempts, object.origin, object.confirmed, object.making, object.suspect_until is not null,
       coalesce(object.suspect_until > clock_timestamp(), false), object.lms_id is not null and not object.awaited,
       object.created_at > clock_timestamp() - {UNTOLD_SECONDS} * interval '1 s'
  from lms_object as object
 where object.target = %(target)s and object.next_at <= clock_timestamp() and object.call is null {which}
 order by object.next_at limit {_AT_ONCE}
""".encode()  # noqa: S608  (constants of ours)


_DUE_AWAITED, _DUE = _due("and (object.awaited or object.moves_to is not null)"), _due("")
_INHERIT = """
update lms_object set origin = coalesce(origin, %(origin)s), confirmed = %(confirmed)s::jsonb || confirmed
 where target = %(target)s and kind = 'person' and object = %(heir)s
"""
_DROP_UNNEEDED = """
delete from lms_object
 where target = %(target)s and kind = %(kind)s and object = %(object)s and heard = %(heard)s and not suspends
   and not exists (select from dependency
                    where target = %(target)s and kind = %(missing)s and object = %(object)s and state = 'missing')
   and not exists (select from lms_object as inside
                    where inside.target = %(target)s and inside.waits_kind = %(kind)s and inside.waits_object = %(object)s)
"""
# Who waits for a section, and what waits to be made in a course. A class of which nothing is told may take place.
_STAND_IN = f"""
with other as (
  select waiter.section
    from (select seat.section
            from work join seat using (target, seat)
           where work.target = %(target)s and work.state = 'waiting' and work.waits_kind = %(kind)s
             and work.waits_object = %(object)s and seat.tenant = %(tenant)s and seat.desired = 'active'
           union
          select inside.section from lms_object as inside
           where inside.target = %(target)s and inside.waits_kind = %(kind)s and inside.waits_object = %(object)s) as waiter
   where not exists (select from entity
                      where entity.tenant = %(tenant)s and entity.kind = 'section' and entity.key = waiter.section
                        and entity.event ->> 'status' in ('cancelled', 'removed'))
   order by 1 limit 1)
update lms_object
   set section = other.section, key = case when kind = 'section' then other.section else key end, term = {_TERM},
       state = 'pending', state_since = clock_timestamp(), next_at = clock_timestamp(), heard = heard + 1, reason = null,
       attempts = 0
  from other
 where target = %(target)s and kind = %(kind)s and object = %(object)s and heard = %(heard)s
"""  # noqa: S608  (a constant of this module)
_EVENTS = """
select kind, event from entity join unnest(%s::text[], %s::text[], %s::text[]) as asked (tenant, kind, key)
  using (tenant, kind, key)
"""
_BEGIN = f"""
with mine as materialized (
  select from lease
   where target = %(target)s and owner = %(owner)s and epoch = %(epoch)s
     and expires_at >= clock_timestamp() + %(deadline)s * interval '1 s' and not exists ({BEHIND})
     for share)
update lms_object as object set call = %(call)s, call_until = clock_timestamp() + %(deadline)s * interval '1 s'
 where object.target = %(target)s and object.kind = %(kind)s and object.object = %(object)s
   and object.heard = %(heard)s and object.call is null and exists (select from mine) and {LIVE}
"""  # noqa: S608  (constants of ours)
# What was heard meanwhile is looked at at once, whatever came of this attempt.
_RECORD = """
update lms_object
   set key = case when heard = %(heard)s then %(key)s else key end,
       section = case when heard = %(heard)s then %(section)s else section end,
       state = case when heard = %(heard)s then %(state)s else 'pending' end,
       state_since = case when state = case when heard = %(heard)s then %(state)s else 'pending' end then state_since
                          else clock_timestamp() end,
       reason = case when heard = %(heard)s then %(reason)s end,
       next_at = case when heard <> %(heard)s then clock_timestamp()
                      when %(state)s = 'suspect' then suspect_until
                      else clock_timestamp() + %(delay)s * interval '1 s' end,
       attempts = case when %(counts)s then attempts + 1 when %(state)s = 'pending' then attempts else 0 end,
       call = null, call_until = null, making = %(making)s,
       suspect_until = case when %(late)s then clock_timestamp() + %(doubt)s * interval '1 s'
                            when %(state)s = 'settled' then null else suspect_until end,
       awaited = awaited and (%(awaited)s or heard <> %(heard)s),
       lms_id = coalesce(%(lms_id)s, lms_id), origin = coalesce(%(origin)s, origin),
       confirmed = confirmed || %(confirmed)s::jsonb, kept = %(kept)s::text[],
       waits_kind = case when heard = %(heard)s then %(waits_kind)s end,
       waits_object = case when heard = %(heard)s then %(waits_object)s end,
       lacks_kind = %(lacks_kind)s, lacks_key = %(lacks_key)s,
       ask_at = case when %(lacks_kind)s::text is null then null else coalesce(ask_at, clock_timestamp()) end,
       suspends = suspends and (%(state)s in ('pending', 'retrying', 'held') or coalesce(%(reason)s, '') = 'off'
                                or heard <> %(heard)s),
       moves_to = case when %(state)s = 'settled' and heard = %(heard)s and %(reason)s is distinct from 'off' then null
                       else moves_to end,
       suspended_at = case when %(suspended)s then clock_timestamp() else suspended_at end
 where target = %(target)s and kind = %(kind)s and object = %(object)s
"""
_WAKE_THOSE_INSIDE = """
with inside as materialized (
  select kind, object from lms_object
   where target = %(target)s and waits_kind = %(kind)s and waits_object = %(object)s
   order by kind, object for update)
update lms_object
   set state = 'pending', state_since = clock_timestamp(), next_at = clock_timestamp(), heard = heard + 1, reason = null,
       attempts = 0, waits_kind = null, waits_object = null
  from inside
 where target = %(target)s and (lms_object.kind, lms_object.object) = (inside.kind, inside.object)
"""
_HAND_OVER = f"""
with theirs as materialized (
  select target, seat from seat
   where target = %(target)s and tenant = %(tenant)s and person = %(person)s and lms_user = %(object)s
     and not (desired = 'deleted' and applied in ('deleted', 'absent'))
   order by target, seat for no key update),
given as (
  update seat
     set applied = 'unknown', applied_at = clock_timestamp(), lms_enrollment = null, lms_course = null
    from theirs where (seat.target, seat.seat) = (theirs.target, theirs.seat)
  returning seat.target, seat.seat, seat.tenant, seat.person, seat.section, seat.course, {TERM} as term)
insert into work (target, seat, tenant, person, course, term, state, priority, next_at)
select target, seat, tenant, person, course, term, 'pending', {PRIORITY_REPAIR}, clock_timestamp()
  from given order by target, seat
    on conflict (target, seat) do update
   set state = 'pending', next_at = clock_timestamp(), attempts = 0, reason = null, code = null,
       waits_kind = null, waits_object = null, hold = null, hold_number = null
"""  # noqa: S608  (constants of ours)


class Row(NamedTuple):
    """One object that is due."""

    subject: Subject
    person: str | None
    heard: int
    known: Known
    looked_at: bool
    """The LMS had it once, and nobody has missed it since."""
    young: bool
    """It was taken up so lately that what the SIS has not told may be on its way."""


class Due(NamedTuple):
    """What there is to look at."""

    rows: list[Row]
    in_shadow: int
    """So many others were put off, because they may not be written to."""


def due(connection: Connection, target: str, limit: int, suspect_seconds: float, *, awaited: bool) -> Due:
    """Objects to look at now, the longest due first; only those that somebody waits for if `awaited`."""
    connection.execute(_LEFT, {"target": target, "doubt": suspect_seconds})
    found = connection.execute(_DUE_AWAITED if awaited else _DUE, {"target": target}).fetchall()
    in_shadow = [(kind, sis_id) for live, kind, sis_id, *_ in found if not live]
    if in_shadow:
        shadowing.put_off(connection, target, in_shadow)
    return Due([_row(*columns) for live, *columns in found if live][:limit], len(in_shadow))


def _row(*columns: Any) -> Row:
    return Row(Subject(*columns[:5]), columns[5], columns[6], Known(*columns[7:13]), *columns[13:])


def drop_unneeded(connection: Connection, target: str, row: Row) -> bool:
    """Forget an object that is not there and that nobody waits for any more; whether it was."""
    subject = row.subject
    place = {"target": target, "kind": subject.kind, "object": subject.object, "heard": row.heard}
    missing = {"person": "user"}.get(subject.kind, subject.kind)
    return connection.execute(_DROP_UNNEEDED, place | {"missing": missing}).rowcount == 1


def stand_in(connection: Connection, target: str, row: Row) -> bool:
    """Have a section or course wanted for another class, because the one that it was wanted for does not take place; whether
    there is one. The classes of one course, and those that are combined, share it."""
    subject = row.subject
    place = {"target": target, "kind": subject.kind, "object": subject.object, "tenant": subject.tenant, "heard": row.heard}
    return connection.execute(_STAND_IN.encode(), place).rowcount == 1


def sections(connection: Connection, tenant: str, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The newest events of these classes, by key text."""
    asked = "select key, event from entity where tenant = %s and kind = 'section' and key = any(%s::text[])"
    return dict(connection.execute(asked, [tenant, text_array(classes)]).fetchall())


def told(connection: Connection, subject: Subject) -> Told:
    """The newest events about it."""
    wanted = [EntityKey(subject.tenant, subject.kind, subject.key)]
    if subject.section is not None:
        wanted.append(EntityKey(subject.tenant, "section", subject.section))
    events = _events(connection, wanted)
    course = named_after(subject, events.get("section"))
    if course is not None and subject.kind in ("course", "section"):
        events |= _events(connection, [course])
    person = events.get("person")
    heir = last_heir(connection, subject.tenant, person["person"]) if person and person.get("merged_into") else None
    return Told(events.get("term"), events.get("course"), events.get("section"), person, heir)


def _events(connection: Connection, wanted: list[EntityKey]) -> dict[str, dict[str, Any]]:
    rows = connection.execute(_EVENTS, [text_array(column) for column in zip(*wanted, strict=True)]).fetchall()
    return dict(rows)


def begin(connection: Connection, lease: Lease, row: Row, call: str, deadline_seconds: float) -> bool:
    """Say that a call is about to be made; False when it must not be. Durable when it returns."""
    place = {"target": lease.target, "kind": row.subject.kind, "object": row.subject.object, "heard": row.heard}
    held = {"owner": lease.owner, "epoch": lease.epoch, "deadline": deadline_seconds, "call": call}
    return connection.execute(_BEGIN.encode(), place | held).rowcount == 1


def is_heir(connection: Connection, target: str, sis_id: str) -> bool:
    """Whether the account of another id is to become this person's: then none is made."""
    row = connection.execute("select from lms_object where target = %s and moves_to = %s limit 1", [target, sis_id]).fetchone()
    return row is not None


def hand_over(connection: Connection, target: str, row: Row) -> bool:
    """Nobody is found under this person's id any more: what the LMS has of their seats is another's now. They are read before
    anything else, and nothing of them can be taken away. False while a call for one of them is under way."""
    place = {"target": target, "tenant": row.subject.tenant, "person": row.person, "object": row.subject.object}
    with connection.transaction():
        busy = "select from intent where target = %(target)s and person = %(person)s and closed_at is null limit 1"
        if connection.execute(busy, place).fetchone() is not None:
            return False
        connection.execute(_HAND_OVER.encode(), place)
    return True


def inherit(connection: Connection, target: str, row: Row, heir: str, confirmed: Mapping[Attribute, str]) -> None:
    """The account of `row` is the heir's now, with what we wrote into it; what is known of the heir's own stands."""
    given = orjson.dumps(dict(confirmed)).decode()
    connection.execute(_INHERIT, {"target": target, "heir": heir, "origin": row.known.origin, "confirmed": given})


def record(
    connection: Connection,
    lease: Lease,
    row: Row,
    verdict: Verdict,
    suspect_seconds: float,
    *,
    lacks: EntityKey | None = None,
    suspended: bool = False,
) -> bool:
    """Write down what came of an attempt; False, and nothing is, when the lease is lost."""
    subject = row.subject
    waits_kind, waits_object = verdict.waits or (None, None)
    with connection.transaction():
        if not holding(lease)(connection):
            return False
        connection.execute(
            _RECORD,
            {
                "target": lease.target,
                "kind": subject.kind,
                "object": subject.object,
                "key": subject.key,
                "section": subject.section,
                "heard": row.heard,
                "state": verdict.state,
                "reason": verdict.reason,
                "delay": verdict.delay_seconds,
                "counts": verdict.counts,
                "late": verdict.late,
                "doubt": suspect_seconds,
                "lms_id": verdict.lms_id,
                "origin": verdict.origin,
                "confirmed": orjson.dumps(dict(verdict.confirmed)).decode(),
                "kept": text_array(verdict.kept),
                "making": verdict.making,
                "awaited": not verdict.exists and verdict.state != "settled",
                "waits_kind": waits_kind,
                "waits_object": waits_object,
                "lacks_kind": lacks.kind if lacks else None,
                "lacks_key": lacks.key if lacks else None,
                "suspended": suspended,
            },
        )
        if verdict.did is not None:
            history.append(connection, [_happening(lease.target, row, verdict)])
    return True


def _happening(target: str, row: Row, verdict: Verdict) -> Happening:
    return Happening(
        tenant=row.subject.tenant,
        person=row.person or "",
        what="object",
        section=row.subject.section,
        target=target,
        kind=row.subject.kind,
        key=row.subject.key,
        detail={"did": verdict.did, "reason": verdict.reason, "attributes": sorted(verdict.confirmed)},
    )


def wake_those_inside(connection: Connection, target: str, kind: ObjectKind, sis_id: str) -> int:
    """This object is there: those that are to be made in it go on; how many."""
    return connection.execute(_WAKE_THOSE_INSIDE, {"target": target, "kind": kind, "object": sis_id}).rowcount
