"""Writing a verdict down, in short transactions: each begins with the target's lease and its row in `guard`.

Whoever judges, approves or pauses locks that row first. A removal goes as it was judged, or not at all: under the decision for
which it was counted, and only while it still waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

import structlog

from services.consumer.guard import reading
from services.consumer.guard.judging import Group, Held, How
from services.consumer.guard.reading import Members
from services.consumer.nouns import NEEDS_LEAVE, TAKES_AWAY
from services.kit.postgres import Connection, text_array

log = structlog.get_logger()

_AT_ONCE = 2000
"""Removals in one transaction: well below a second, so that the lease can be renewed in between."""

_LOCK = """
insert into guard (target) values (%s) on conflict (target) do update set target = excluded.target returning paused
"""
# What needs no leave any more is read, or settles; what was let through before a pause, or approved, is ready.
_READY = f"""
with ready as materialized (
  select work.seat
    from work
   cross join lateral (select * from seat where seat.target = work.target and seat.seat = work.seat offset 0) as seat
   where work.target = %(target)s and work.state = 'guarded'
     and (work.cleared is not distinct from seat.decision or not {NEEDS_LEAVE})
   order by work.seat limit %(limit)s for update of work skip locked)
update work set state = 'pending', hold = null, hold_number = null
  from ready where work.target = %(target)s and work.seat = ready.seat
"""  # noqa: S608  (a constant of ours)
_PULL_BACK = f"""
with unsent as materialized (
  select work.seat
    from work
   cross join lateral (select * from seat where seat.target = work.target and seat.seat = work.seat offset 0) as seat
   where work.target = %(target)s and work.state in ('pending', 'retrying') and {TAKES_AWAY}
   order by work.seat limit %(limit)s for update of work skip locked)
update work set state = 'guarded' from unsent where work.target = %(target)s and work.seat = unsent.seat
"""  # noqa: S608  (a constant of ours)
# Decided anew while it was held, and still a removal: whoever said no, or has not said yes, meant this one too. When the hold was
# approved meanwhile it is judged like any other.
_REJOIN = """
with back as materialized (
  select work.seat, hold.state in ('open', 'discarded') as stays
    from work join hold using (target, hold)
   where work.target = %(target)s and work.state = 'guarded'
   order by work.seat limit %(limit)s for update of work skip locked),
held as (
  update work
     set state = case when stays then 'held' else 'guarded' end, hold = case when stays then work.hold end,
         hold_number = case when stays then nextval('held_number') end
    from back join seat on seat.target = %(target)s and seat.seat = back.seat
   where work.target = %(target)s and work.seat = back.seat
  returning seat.tenant, seat.person, seat.section, seat.target, seat.seat, seat.version, seat.decision, work.hold),
told as (
  insert into history (tenant, person, section, target, seat, what, version, detail)
  select tenant, person, section, target, seat, 'held', version, jsonb_build_object('hold', hold, 'decision', decision)
    from held where hold is not null)
select from held
"""
_JUDGED = """
with judged as materialized (
  select work.seat, seat.tenant, seat.person, seat.section, seat.course, seat.version, seat.decision, asked.leaves_course,
         asked.source
    from unnest(%(seats)s::text[], %(decisions)s::bigint[], %(leaves)s::boolean[], %(sources)s::text[])
      as asked (seat, decision, leaves_course, source)
   cross join lateral (
     select * from work where work.target = %(target)s and work.seat = asked.seat and work.state = 'guarded' offset 0
        for no key update skip locked) as work
   cross join lateral (select * from seat where seat.target = %(target)s and seat.seat = work.seat offset 0) as seat
   where seat.decision = asked.decision)
"""
_LET_THROUGH = f"""{_JUDGED},
passed as (
  update work set state = 'pending', cleared = judged.decision
    from judged where work.target = %(target)s and work.seat = judged.seat)
insert into removal (target, seat, decision, tenant, section, course, leaves_course, how, source)
select %(target)s, seat, decision, tenant, section, course, leaves_course, %(how)s, source from judged
"""  # noqa: S608  (a constant of this module)
_HOLD = f"""{_JUDGED},
held as (
  update work set state = 'held', hold = %(hold)s, hold_number = nextval('held_number')
    from judged where work.target = %(target)s and work.seat = judged.seat)
insert into history (tenant, person, section, target, seat, what, version, detail)
select tenant, person, section, %(target)s, seat, 'held', version,
       jsonb_build_object('hold', %(hold)s::bigint, 'decision', decision)
  from judged
"""  # noqa: S608  (a constant of this module)
_USE_PLAN = "update planned_change set used = least(most, used + %s) where target = %s and planned = %s"
_OPEN_HOLD = """
insert into hold (target, tenant, scope, key, "window", removals, active, allowed, gained, was_course, is_course)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning hold
"""
_IS_OPEN = "select from hold where target = %s and hold = %s and state = 'open' for share"
_EMPTIED = """
update hold set state = 'emptied', closed_at = clock_timestamp()
 where target = %s and state = 'open' and not exists (
   select from work where work.target = hold.target and work.hold = hold.hold and work.state in ('held', 'guarded'))
"""
# The student system has taken the other class back, or given the number to a third one, or a person has agreed: whatever became
# of the hold. Or the seat belongs to another section by now, with which this one is combined.
_LET_IN = """
with free as materialized (
  select work.seat from work join hold using (target, hold) join seat using (target, seat)
   where work.target = %(target)s and work.state = 'held' and hold.scope = 'reused_section'
     and (seat.section <> hold.key
          or not exists (select from section_course as number
                          where number.tenant = hold.tenant and number.section = hold.key and number.reused_as = hold.is_course))
   order by work.seat limit %(limit)s for update of work skip locked)
update work set state = 'guarded', hold = null, hold_number = null
  from free where work.target = %(target)s and work.seat = free.seat
"""
_OLD = "delete from removal where target = %s and at < clock_timestamp() - interval '25 hours'"
_TO_TIDY = """
select exists (select from hold where target = %(target)s and state = 'open')
         or exists (select from removal where target = %(target)s and at < clock_timestamp() - interval '25 hours'),
       exists (select from hold where target = %(target)s and scope = 'reused_section' and state in ('open', 'discarded'))
"""


class Stopped(Exception):
    """The lease is lost, or removals were paused: nothing more is written."""


class Writer:
    """Writes for one target while `holds_lease`, which locks the lease until the transaction ends."""

    def __init__(self, connection: Connection, target: str, holds_lease: Callable[[Connection], bool]) -> None:
        self._connection = connection
        self._target = target
        self._holds_lease = holds_lease

    def ready(self) -> int:
        """Make ready what needs no judgement; how many."""
        return self._in_batches(_READY)

    def rejoin(self) -> int:
        """Put back into their holds what was decided anew while it was held; how many."""
        return self._in_batches(_REJOIN)

    def pull_back(self) -> int:
        """What was let through and not sent yet waits for the end of the pause; how many."""
        return self._in_batches(_PULL_BACK, paused=True)

    def let_through(self, how: How, planned: str | None, groups: Iterable[Group], members: Mapping[Group, Members]) -> int:
        """Make removals ready that go for the same cause, and count them; how many."""
        total = 0
        for batch in _batches(groups, members):
            with self._transaction():
                count = self._connection.execute(_LET_THROUGH, batch | {"target": self._target, "how": how}).rowcount
                if planned is not None:
                    self._connection.execute(_USE_PLAN, [count, self._target, planned])
            total += count
        return total

    def hold(self, held: Held, hold: int | None, members: Mapping[Group, Members]) -> int:
        """Hold removals, in a hold that is open or in a new one; how many."""
        total = 0
        for batch in _batches(held.groups, members):
            with self._transaction():
                if hold is None:
                    hold = self._open(held)
                elif self._connection.execute(_IS_OPEN, [self._target, hold]).fetchone() is None:
                    return total  # decided meanwhile: what is left is judged again
                total += self._connection.execute(_HOLD, batch | {"target": self._target, "hold": hold}).rowcount
        log.warning("removals_held", target=self._target, hold=hold, scope=held.scope.kind, count=total)
        return total

    def tidy(self) -> None:
        """Let in whom nothing holds any more, close holds that nothing is in, and forget removals that count in no window.
        Usually a read is all."""
        row = self._connection.execute(_TO_TIDY, {"target": self._target}).fetchone()
        assert row is not None  # noqa: S101  (always one row)
        something, somebody_waits = row
        if somebody_waits:
            self._in_batches(_LET_IN)
        if not something:
            return
        with self._transaction(paused=None):
            self._connection.execute(_EMPTIED, [self._target])
            self._connection.execute(_OLD, [self._target])

    @contextmanager
    def _transaction(self, *, paused: bool | None = False) -> Iterator[None]:
        """Raises `Stopped` unless the lease is ours and removals are, or are not, paused; None: whether or not."""
        with self._connection.transaction():
            if not self._holds_lease(self._connection):
                raise Stopped
            if paused not in (None, lock(self._connection, self._target)):
                raise Stopped
            yield

    def _in_batches(self, statement: str, *, paused: bool = False) -> int:
        total = 0
        while True:
            with self._transaction(paused=paused):
                count = self._connection.execute(statement.encode(), {"target": self._target, "limit": _AT_ONCE}).rowcount
            total += count
            if count < _AT_ONCE:
                return total

    def _open(self, held: Held) -> int:
        assert held.cause is not None  # noqa: S101  (what has no cause is in a hold that is open)
        scope, cause = held.scope, held.cause
        gained = reading.gained(self._connection, self._target, scope)
        row = self._connection.execute(
            _OPEN_HOLD,
            [
                self._target,
                scope.tenant,
                scope.kind,
                scope.key,
                cause.window,
                cause.removals,
                cause.active,
                cause.allowed,
                gained,
                *(cause.courses or (None, None)),
            ],
        ).fetchone()
        assert row is not None  # noqa: S101  (an insert returns its row)
        return int(row[0])


def lock(connection: Connection, target: str) -> bool:
    """Lock the target's guard until the transaction ends; whether removals are paused."""
    row = connection.execute(_LOCK, [target]).fetchone()
    assert row is not None  # noqa: S101  (an upsert returns its row)
    return bool(row[0])


def _batches(groups: Iterable[Group], members: Mapping[Group, Members]) -> Iterator[dict[str, object]]:
    """The parameters of `_JUDGED`, but the target, for so many seats at once: a term has thousands of small groups."""
    rows = (
        (seat, str(decision), str(group.leaves_course), group.source)
        for group in groups
        for seat, decision in zip(*members[group], strict=True)
    )
    while batch := list(islice(rows, _AT_ONCE)):
        seats, decisions, leaves, sources = (text_array(column) for column in zip(*batch, strict=True))
        yield {"seats": seats, "decisions": decisions, "leaves": leaves, "sources": sources}
