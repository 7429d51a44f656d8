"""Waiting for what the LMS lacks: one row and one probe schedule per missing object, whoever waits for it.

A waking must not get lost: a seat starts to wait in a transaction that locks the object's row and looks whether it was resolved
after the seat's call began; waking locks the same row first. Locks are taken seats before dependencies before work. Should one
get lost all the same, the seat's own timer finds that nobody asks for its object. While somebody does, the timer costs no call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from services.consumer.drive.backoff import PROBE, WAIT_TIMER_CAP_SECONDS, WAIT_TIMER_SECONDS
from services.consumer.drive.reactions import Settlement
from services.consumer.nouns import MissingKind
from services.kit.postgres import Connection, text_array


class Missing(NamedTuple):
    """An object whose probe is due."""

    kind: MissingKind
    sis_id: str
    probes: int
    """Made so far, in vain."""


# The update changes nothing; it locks a row that exists, and a new one is ours until we commit.
_LOCK = """
insert into dependency (target, kind, object, state, next_probe_at)
select %s, kind, object, 'missing', clock_timestamp() + %s * interval '1 s'
  from unnest(%s::text[], %s::text[]) as missing (kind, object)
 order by kind, object
    on conflict (target, kind, object) do update set target = excluded.target
returning kind, object, state, resolved_at
"""
_MARK_MISSING = """
update dependency
   set state = 'missing', since = clock_timestamp(), resolved_at = null, probes = 0, noted = false,
       next_probe_at = clock_timestamp() + %s * interval '1 s'
  from unnest(%s::text[], %s::text[]) as missing (kind, object)
 where dependency.target = %s and dependency.kind = missing.kind and dependency.object = missing.object
   and dependency.state = 'resolved'
"""
_DUE = """
select kind, object, probes from dependency
 where target = %s and state = 'missing' and next_probe_at <= clock_timestamp()
 order by next_probe_at limit %s for update skip locked
"""
# `dependency_young` is the index over them.
_DUE_YOUNG = """
select kind, object, probes from dependency
 where target = %s and state = 'missing' and probes < 6 and next_probe_at <= clock_timestamp()
 order by next_probe_at limit %s for update skip locked
"""
# A statement of its own: its snapshot is younger than the locks, so it sees whoever began to wait before them.
_DROP_UNNEEDED = """
delete from dependency
 using unnest(%(kinds)s::text[], %(objects)s::text[]) as due (kind, object)
 where dependency.target = %(target)s and dependency.kind = due.kind and dependency.object = due.object
   and not exists (select from work
                    where work.target = %(target)s and work.state = 'waiting'
                      and work.waits_kind = due.kind and work.waits_object = due.object)
returning dependency.kind, dependency.object
"""
_NEXT_PROBE = """
update dependency set probes = probes + 1, next_probe_at = clock_timestamp() + %s * interval '1 s'
 where target = %s and kind = %s and object = %s and state = 'missing'
"""
_RESOLVE = """
update dependency set state = 'resolved', resolved_at = clock_timestamp()
 where target = %s and kind = %s and object = %s and state = 'missing'
"""
# Locked in the order in which everybody locks work.
_WAKE = """
with asleep as (
  select target, seat from work
   where target = %(target)s and state = 'waiting' and waits_kind = %(kind)s and waits_object = %(object)s
     and exists (select from dependency
                  where target = %(target)s and kind = %(kind)s and object = %(object)s and state = 'resolved')
   order by target, seat limit %(limit)s for update),
woken as (
  update work set state = 'pending', next_at = clock_timestamp(), waits_kind = null, waits_object = null
    from asleep where (work.target, work.seat) = (asleep.target, asleep.seat)
  returning work.target, work.seat)
insert into history (tenant, person, section, target, seat, what, version, detail)
select seat.tenant, seat.person, seat.section, seat.target, seat.seat, 'woken', seat.version,
       jsonb_build_object('waited_for', %(kind)s::text)
  from woken join seat on seat.target = woken.target and seat.seat = woken.seat
"""
_ASLEEP_IN_VAIN = """
select kind, object from dependency
 where target = %(target)s and state = 'resolved'
   and exists (select from work
                where work.target = %(target)s and work.state = 'waiting'
                  and work.waits_kind = dependency.kind and work.waits_object = dependency.object)
"""
# The next timer doubles the age, give or take a quarter.
_TIMERS = f"""
with due as materialized (
  select target, seat from work
   where target = %(target)s and state = 'waiting' and next_at <= clock_timestamp()
   order by next_at limit %(limit)s for update skip locked),
told as (
  select work.*, dependency.object is null as lost
    from due join work using (target, seat)
    left join dependency on dependency.target = work.target and dependency.kind = work.waits_kind
                        and dependency.object = work.waits_object and dependency.state = 'missing')
update work
   set state = case when lost then 'pending' else 'waiting' end,
       next_at = clock_timestamp() + case
         when lost then interval '0'
         else least(greatest(clock_timestamp() - told.created_at, {WAIT_TIMER_SECONDS} * interval '1 s'),
                    {WAIT_TIMER_CAP_SECONDS} * interval '1 s') * (0.75 + random() / 2) end,
       waits_kind = case when not lost then told.waits_kind end,
       waits_object = case when not lost then told.waits_object end
  from told where (work.target, work.seat) = (told.target, told.seat)
returning lost
"""  # noqa: S608  (constants of this module)
_AT_ONCE = 2000
"""Seats in one transaction: well below a second, and the locks are short."""


def settle_waits(connection: Connection, target: str, settlements: Sequence[Settlement]) -> list[Settlement]:
    """Lock the objects that some of these seats are to wait for; a seat whose object was resolved after its call began tries
    again instead. The caller records the result in the same transaction."""
    objects = sorted({settlement.waits for settlement in settlements if settlement.waits is not None})
    if not objects:
        return list(settlements)
    kinds, names = text_array(kind for kind, _ in objects), text_array(name for _, name in objects)
    rows = connection.execute(_LOCK, [target, PROBE.first_seconds, kinds, names]).fetchall()
    resolved_at = {(kind, name): at for kind, name, state, at in rows if state == "resolved"}
    settled = []
    for settlement in settlements:
        at = None if settlement.waits is None else resolved_at.get(settlement.waits)
        again = at is not None and at > settlement.order.opened_at
        settled.append(replace(settlement, then="now", delay_seconds=0.0, waits=None) if again else settlement)
    still = sorted({settlement.waits for settlement in settled if settlement.waits is not None})
    kinds, names = text_array(kind for kind, _ in still), text_array(name for _, name in still)
    connection.execute(_MARK_MISSING, [PROBE.first_seconds, kinds, names, target])
    return settled


def due(connection: Connection, target: str, limit: int, *, young: bool) -> list[Missing]:
    """Objects to ask for now, those that were asked for few times if `young`, else the longest due; those that nobody waits for
    any more are forgotten."""
    with connection.transaction():
        rows = connection.execute(_DUE_YOUNG if young else _DUE, [target, limit]).fetchall()
        found = [Missing(*row) for row in rows]
        if not found:
            return []
        parameters = {
            "target": target,
            "kinds": text_array(missing.kind for missing in found),
            "objects": text_array(missing.sis_id for missing in found),
        }
        dropped = set(connection.execute(_DROP_UNNEEDED, parameters).fetchall())
    return [missing for missing in found if (missing.kind, missing.sis_id) not in dropped]


def ask_again(connection: Connection, target: str, missing: Missing, random: float) -> None:
    """Still not there, or not known: the next probe."""
    delay = PROBE.delay(missing.probes + 1, random)
    connection.execute(_NEXT_PROBE, [delay, target, missing.kind, missing.sis_id])


def resolve(connection: Connection, target: str, kind: MissingKind, sis_id: str) -> int:
    """The object is there: wake who waits for it; how many that were. Call `wake` until it wakes nobody."""
    with connection.transaction():
        if connection.execute(_RESOLVE, [target, kind, sis_id]).rowcount == 0:
            return 0
        return wake(connection, target, kind, sis_id)


def wake(connection: Connection, target: str, kind: MissingKind, sis_id: str) -> int:
    """Wake some of those who wait for an object that is there; how many."""
    return connection.execute(_WAKE, {"target": target, "kind": kind, "object": sis_id, "limit": _AT_ONCE}).rowcount


def asleep_in_vain(connection: Connection, target: str) -> list[tuple[MissingKind, str]]:
    """Objects that are there and that somebody still waits for: a crash came between `resolve` and the last `wake`."""
    return [(kind, sis_id) for kind, sis_id in connection.execute(_ASLEEP_IN_VAIN, {"target": target}).fetchall()]


def look_at_timers(connection: Connection, target: str) -> int:
    """Seats whose timer ended and whose object nobody asks for try again; how many. The others' timers start over."""
    rows = connection.execute(_TIMERS, {"target": target, "limit": _AT_ONCE}).fetchall()
    return sum(lost for (lost,) in rows)
